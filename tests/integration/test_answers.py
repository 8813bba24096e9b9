"""Answers of the server are what its documentation says, field for field."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter

from service.api.answers import ChatAnswer, TextAnswer
from service.api.health import Readiness
from service.schemas.answers import LensAnswer
from service.schemas.score_answer import ScoreAnswer
from service.schemas.vector_answers import (
    DescribedVector,
    NearestAnswer,
    NeighboursAnswer,
    TokenTextsAnswer,
    VectorAnswer,
    VectorPage,
)
from tests.integration.client import Client
from tests.integration.servers import MODEL

BOTH = ["base", "controlled"]
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
TEXT = {"model": MODEL, "prompt": "The sea is", "max_tokens": 2}
CONTROL = {"logit_control": {"bias": [{"text": " blue", "add": 1}]}}
POSTED: list[tuple[str, dict[str, Any], Any]] = [
    ("/v1/chat/completions", CHAT, ChatAnswer),
    ("/v1/chat/completions", {**CHAT, "distribution": {"stages": BOTH, "top_k": 3}}, ChatAnswer),
    ("/v1/chat/completions", {**CHAT, "distribution": {"encoding": "json"}}, ChatAnswer),
    ("/v1/completions", {**TEXT, "distribution": {"top_k": "all"}}, TextAnswer),
    ("/v1/completions", {**TEXT, "distribution": {"top_p": 0.5, "prompt": True}}, TextAnswer),
    ("/v1/score", {"prompt": "The sea is", "continuations": [" blue", " deep"]}, ScoreAnswer),
    ("/v1/score", {"prompt": "The sea", "continuations": [" is"], **CONTROL}, ScoreAnswer),
    ("/v1/lens", {"prompt": "The sea is", "layers": [3, 29]}, LensAnswer),
    ("/v1/lens", {"prompt": "The sea is", "encoding": "base64"}, LensAnswer),
]


def check(model: Any, answer: bytes) -> Any:
    """Return an answer as its type reads it; ValidationError for a field that it does not have."""
    return TypeAdapter(model).validate_json(answer)


@pytest.mark.parametrize(("path", "body", "model"), POSTED)
def test_what_is_asked(v1: Client, path: str, body: dict[str, Any], model: Any) -> None:
    answer = v1.http.post(path, json=body)
    assert answer.is_success, answer.text
    read = check(model, answer.content)
    if "distribution" in body:
        assert read.choices[0].distribution is not None


def test_vectors_and_tokens(v1: Client) -> None:
    contrast = {"positive": ["It is good."], "negative": ["It is bad."], "layers": [10, 29]}
    for source in ({"text": " sea"}, {"contrast": contrast}):
        made = v1.http.post("/v1/vectors", json={"name": "told", "from": source, "replace": True})
        check(VectorAnswer, made.content)
        for path, model in (
            ("/v1/vectors", VectorPage),
            ("/v1/vectors/told", DescribedVector),
            ("/v1/vectors/told/nearest?k=2", NearestAnswer),
        ):
            check(model, v1.http.get(path).content)
    v1.http.delete("/v1/vectors/told").raise_for_status()
    check(NeighboursAnswer, v1.http.get("/v1/tokens/nearest?text=sea&k=2").content)
    check(TokenTextsAnswer, v1.http.get("/v1/tokens").content)
    check(Readiness, v1.http.get("/ready").content)
