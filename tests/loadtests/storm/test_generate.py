"""The storm's requests: repeatable, valid by the schema, and of every kind."""

from __future__ import annotations

from collections import Counter

import pytest
from pydantic import BaseModel

from loadtests.storm.generate import shot
from loadtests.storm.shot import ARROW, CHAT, COMPLETION, LENS, SCORE, Shot
from loadtests.storm.target import Target
from service.api.requests import ChatRequest, TextRequest
from service.schemas.sight import LensRequest, ScoreRequest
from service.schemas.vectors import MakeVector

TARGET = Target(
    url="http://localhost",
    models=("model", "adapter"),
    context=512,
    vocabulary=49152,
    layers=30,
    hidden_size=4,
    most_tokens=40,
    tools=True,
    patience=2.0,
)
MODELS: dict[str, type[BaseModel]] = {
    CHAT: ChatRequest,
    COMPLETION: TextRequest,
    SCORE: ScoreRequest,
    LENS: LensRequest,
    "/v1/vectors": MakeVector,
}
COUNT = 1500


@pytest.fixture(scope="module")
def shots() -> list[Shot]:
    return [shot(7, number, TARGET) for number in range(COUNT)]


def test_a_number_repeats_a_request(shots: list[Shot]) -> None:
    assert shots == [shot(7, number, TARGET) for number in range(COUNT)]
    assert shots[:20] != [shot(8, number, TARGET) for number in range(20)]


@pytest.mark.filterwarnings("ignore:max_tokens is deprecated:DeprecationWarning")
def test_each_is_valid_by_the_schema(shots: list[Shot]) -> None:
    for each in shots:
        if each.path in MODELS:
            MODELS[each.path].model_validate_json(each.content)


def test_every_field_is_used_and_every_kind_of_answer_asked(shots: list[Shot]) -> None:
    fields = Counter(name for each in shots for name in each.fields)
    controls = Counter(
        name for each in shots for name in each.fields.get("logit_control", {}) if each.fields
    )
    assert controls.keys() == {"bias", "suppress", "steer", "force"}
    for name in ("seed", "n", "echo", "prompt_logprobs", "use_beam_search", "tool_choice"):
        assert fields[name] > 5, name
    for name in ("structured_outputs", "allowed_token_ids", "bad_words", "min_tokens"):
        assert fields[name] > 20, name
    assert {each.fields.get("model") for each in shots} >= {"model", "adapter"}
    assert sum(each.headers.get("accept") == ARROW for each in shots) > 50
    assert sum(each.patience is not None for each in shots) > 50
    assert {each.method for each in shots} == {"POST", "PUT", "GET", "DELETE"}
