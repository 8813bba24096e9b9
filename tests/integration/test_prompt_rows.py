"""Distributions of the prompt's own tokens, against transformers, however they are asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer

from service.embedded_model import embedded_model_dir
from tests.integration.arrow_client import stream
from tests.integration.client import Client, array
from tests.integration.servers import MODEL

PROMPT = "The history of the city begins with a small group of people who"
LONG = " ".join(f"Item {number} of the list." for number in range(30))
BOTH = ["base", "controlled"]


def tokens_of(text: str) -> list[int]:
    found: list[int] = AutoTokenizer.from_pretrained(embedded_model_dir())(text)["input_ids"]
    return found


def expected(model: torch.nn.Module, token_ids: list[int]) -> NDArray[np.float32]:
    """Return the log-probabilities that transformers gives, ``[tokens - 1, vocab]``."""
    with torch.no_grad():
        logits = model(torch.tensor([token_ids])).logits[0, :-1]
    found: NDArray[np.float32] = torch.log_softmax(logits, -1).numpy()
    return found


def check(told: dict[str, Any], reference: torch.nn.Module, token_ids: list[int]) -> None:
    """Hold dense rows of a prompt, and what is computed of them, against transformers."""
    logprobs = expected(reference, token_ids)
    followed = np.array(token_ids[1:])
    assert told["positions"] == len(followed)
    assert array(told["sampled"]["token_id"]).tolist() == followed.tolist()
    own = logprobs[np.arange(len(followed)), followed]
    entropy = -(np.exp(logprobs) * logprobs).sum(1)
    for stage in BOTH:
        assert np.abs(array(told[stage]["logprobs"]) - logprobs).max() < 2e-3
        assert np.abs(array(told["sampled"][f"{stage}_logprob"]) - own).max() < 2e-3
        assert np.abs(array(told[stage]["entropy"]) - entropy).max() < 2e-3
    assert not array(told["kl"]).any()


@pytest.mark.parametrize(("server", "text"), [("v1", PROMPT), ("v1", LONG), ("v2", PROMPT)])
def test_rows_of_the_prompt_are_those_of_transformers(
    request: pytest.FixtureRequest, reference: torch.nn.Module, server: str, text: str
) -> None:
    check_prompt_of(request.getfixturevalue(server), reference, text)


def check_prompt_of(client: Client, reference: torch.nn.Module, text: str) -> None:
    """Ask for the rows of a prompt that is in the cache already."""
    token_ids = tokens_of(text)
    client.complete(token_ids, max_tokens=1)
    wanted = {"top_k": "all", "stages": BOTH, "prompt": True}
    choice = client.choice(token_ids, max_tokens=2, distribution=wanted)
    check(choice["distribution"]["prompt"], reference, token_ids)
    assert array(choice["distribution"]["sampled"]["token_id"]).tolist() == choice["token_ids"]


def test_a_stream_tells_the_prompt_once(v1: Client) -> None:
    body = {"model": MODEL, "prompt": PROMPT, "max_tokens": 4, "n": 2, "seed": 1}
    wanted = {"top_k": 3, "prompt": True}
    events = v1.events("/v1/completions", {**body, "distribution": wanted})
    told = [
        (choice["index"], choice["distribution"]["prompt"])
        for event in events
        for choice in event["choices"]
        if "prompt" in choice.get("distribution", {})
    ]
    assert [index for index, _ in told] == [0]
    whole = v1.choice(PROMPT, distribution=wanted)["distribution"]["prompt"]
    assert array(told[0][1]["controlled"]["token_ids"]).tolist() == (
        array(whole["controlled"]["token_ids"]).tolist()
    )


def test_arrow_counts_the_prompt_backwards(v1: Client, reference: torch.nn.Module) -> None:
    texts = [PROMPT, "One, two, three,"]
    wanted = {"top_k": 5, "prompt": True}
    told = stream(v1, texts, n=2, temperature=1, seed=2, max_tokens=3, distribution=wanted)
    rows = told.table.to_pylist()
    for choice in range(4):
        mine = [row for row in rows if row["choice"] == choice]
        token_ids = tokens_of(texts[choice // 2])
        before = len(token_ids) - 1 if choice % 2 == 0 else 0
        assert [row["position"] for row in mine] == list(range(-before, 3))
        if before:
            assert [row["token_id"] for row in mine[:before]] == token_ids[1:]
            logprobs = expected(reference, token_ids)
            own = logprobs[np.arange(before), token_ids[1:]]
            found = [row["controlled_logprob"] for row in mine[:before]]
            assert np.abs(own - found).max() < 2e-3


def test_prompt_logprobs_are_served_from_the_rows(v1: Client, reference: torch.nn.Module) -> None:
    token_ids = tokens_of(PROMPT)
    logprobs = expected(reference, token_ids)
    first, *others = v1.choice(token_ids, prompt_logprobs=3)["prompt_logprobs"]
    assert first is None
    for row, token, told in zip(logprobs, token_ids[1:], others, strict=True):
        assert next(iter(told)) == str(token)
        best = set(np.argsort(-row)[:3].tolist()) | {token}
        assert {int(key) for key in told} == best
        for key, entry in told.items():
            assert entry["logprob"] == pytest.approx(float(row[int(key)]), abs=2e-3)
            assert entry["rank"] == 1 + int((row > row[int(key)]).sum())


def test_a_chat_has_them_too_and_an_echo(v1: Client) -> None:
    body = {"model": MODEL, "max_tokens": 2, "temperature": 0}
    messages = [{"role": "user", "content": "Hello."}]
    chat = {**body, "messages": messages, "prompt_logprobs": 0, "distribution": {"prompt": True}}
    answer = v1.http.post("/v1/chat/completions", json=chat).json()
    told = answer["choices"][0]["distribution"]["prompt"]
    assert len(answer["prompt_logprobs"]) == told["positions"] + 1
    ids = array(told["sampled"]["token_id"]).tolist()
    assert [int(next(iter(entry))) for entry in answer["prompt_logprobs"][1:]] == ids
    echo = v1.choice(PROMPT, echo=True, logprobs=2, max_tokens=2)
    assert echo["logprobs"]["token_logprobs"][0] is None
    assert len(echo["logprobs"]["tokens"]) == len(tokens_of(PROMPT)) + 2
    assert echo["text"].startswith(PROMPT)
    assert "".join(echo["logprobs"]["tokens"]) == echo["text"]


def test_a_prompt_of_one_token_has_no_rows(v1: Client) -> None:
    choice = v1.choice([28], distribution={"prompt": True})
    assert "prompt" not in choice["distribution"]
    assert v1.choice([28], prompt_logprobs=2)["prompt_logprobs"] == [None]
    told = stream(v1, "a", max_tokens=2, distribution={"prompt": True})
    assert told.table["position"].to_pylist() == [0, 1]


def test_a_prompt_too_large_for_its_rows_is_refused(v1: Client) -> None:
    """900 rows of two stages, in float32 nested lists, are more than a request may have."""
    wanted = {"top_k": "all", "stages": BOTH, "encoding": "json", "prompt": True}
    body = {"model": MODEL, "prompt": [28] * 900, "max_tokens": 1, "distribution": wanted}
    status, error = v1.refused("/v1/completions", body)
    assert (status, error["param"]) == (400, "distribution.prompt")
