"""Refusing what the engine would end of, once the model's own tokens and a tokenizer are added."""

from __future__ import annotations

from typing import Any

import pytest
from vllm import SamplingParams, envs
from vllm.exceptions import VLLMValidationError
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.worker.gpu.sample.logit_bias import MAX_NUM_ALLOWED_TOKEN_IDS, MAX_NUM_STOP_TOKEN_IDS

from service.access.field_sizes import MAX_ALLOWED_IDS, MAX_STOP_IDS
from service.engine.sampling_room import MAX_SEED, check_room, with_room
from tests.vllm_objects import engine_request

MOST_TOKENS = envs.VLLM_MAX_BAD_WORDS_TOTAL_TOKENS


def stopping(count: int, min_tokens: int) -> SamplingParams:
    """Return parameters that stop at so many tokens and at the model's two."""
    params = SamplingParams(stop_token_ids=list(range(count)), min_tokens=min_tokens, max_tokens=9)
    params.update_from_generation_config({"eos_token_id": [9998, 9999]}, 9999)
    return params


def without(*sizes: int) -> SamplingParams:
    """Return parameters without words of so many tokens."""
    params = SamplingParams()
    params._bad_words_token_ids = [[7] * size for size in sizes]
    return params


@pytest.mark.parametrize(
    ("params", "field"),
    [
        (stopping(MAX_STOP_IDS - 1, 1), "stop_token_ids"),
        (stopping(MAX_STOP_IDS, 1), "stop_token_ids"),
        (without(MOST_TOKENS + 1), "bad_words"),
        (without(MOST_TOKENS, 1), "bad_words"),
        (SamplingParams(seed=MAX_SEED, n=2), "seed"),
        (SamplingParams(seed=MAX_SEED - 126, n=128), "seed"),
    ],
)
def test_more_than_there_is_room_for(params: SamplingParams, field: str) -> None:
    with pytest.raises(VLLMValidationError, match=r"too (many|large)") as refused:
        check_room(params)
    assert refused.value.parameter == field


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(),
        stopping(MAX_STOP_IDS - 2, 1),
        stopping(MAX_STOP_IDS, 0),
        without(MOST_TOKENS - 1, 1),
        SamplingParams(seed=MAX_SEED),
        SamplingParams(seed=MAX_SEED - 127, n=128),
        SamplingParams(seed=-(2**63), n=2),
    ],
)
def test_what_there_is_room_for(params: SamplingParams) -> None:
    check_room(params)


def test_each_request_is_checked_as_the_engine_gets_it() -> None:
    made: list[EngineCoreRequest] = []

    def process_inputs(*args: Any, **_: Any) -> EngineCoreRequest:
        made.append(engine_request(args[0]))
        return made[-1]

    checked = with_room(process_inputs)
    for passing in (None, SamplingParams()):
        assert checked(passing) is made[-1]
    with pytest.raises(VLLMValidationError):
        checked(without(MOST_TOKENS + 1))


def test_a_request_may_bring_as_many_tokens_as_the_runner_has_room_for() -> None:
    assert (MAX_STOP_IDS, MAX_ALLOWED_IDS) == (MAX_NUM_STOP_TOKEN_IDS, MAX_NUM_ALLOWED_TOKEN_IDS)
