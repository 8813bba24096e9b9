"""What a planner refuses, and the rows it keeps."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from logit_processors.row_spec import DENSE, RowSpec
from service.errors import BadRequestError, NotFoundError
from service.planning.asked import Asked, row_spec
from service.planning.planner import Planner
from service.schemas.control import LogitControl
from service.settings import Settings
from service.vectors.registry import VectorRegistry
from service.vectors.residual_bank import ResidualSupport
from service.vectors.store import VectorStore
from tests.entries import program_of, spec_of
from tests.service.planning.asking import BIAS, STEER, SUPPRESS, VOCAB, WIDTH, asked
from tests.unit_support import FakeEngine, model_facts, safetensors


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (asked(), None),
        (asked(BIAS), None),
        (asked(SUPPRESS), spec_of()),
        (asked({"suppress": [{"text": "a"}]}), spec_of()),
        (asked({"bias": [{"text": "a", "add": 1.0}]}), spec_of()),
        (asked(None, {}), spec_of(20, controlled=True)),
        (asked(None, {"stages": ["base"]}), spec_of(20, base=True)),
        (asked(None, {"stages": ["controlled", "base"]}), spec_of(20, True, True)),
        (asked(None, {"top_k": "all"}), spec_of(DENSE, controlled=True)),
        (asked(None, {"dtype": "float16"}), spec_of(20, controlled=True, half=True)),
        (asked(logprobs=0), spec_of(0, base=True)),
        (asked(logprobs=5), spec_of(5, base=True)),
        (asked(logprobs=-1), spec_of(DENSE, base=True)),
        (asked(None, {"top_k": 3}, logprobs=5), spec_of(5, True, True)),
        (asked(None, {"top_k": 30}, logprobs=5), spec_of(30, True, True)),
        (asked(None, {"top_k": 3}, logprobs=-1), spec_of(DENSE, True, True)),
        (asked(None, {"top_k": "all"}, logprobs=5), spec_of(DENSE, True, True)),
        # OpenAI's logprobs are served from the same rows and stay exact.
        (asked(None, {"dtype": "float16"}, logprobs=5), spec_of(20, True, True)),
        (asked(SUPPRESS, beam_search=True), None),
        (asked(BIAS, scored_token_ids=True), None),
    ],
)
def test_rows_hold_all_that_was_asked(
    request_: Asked, expected: RowSpec | None, planner: Planner
) -> None:
    if request_.beam_search:
        assert row_spec(request_, can_fail=False) == expected
    else:
        assert planner.plan(request_).spec == expected


@pytest.mark.parametrize(
    ("request_", "param", "words"),
    [
        (asked({"bias": [{"token_id": VOCAB, "add": 1.0}]}), "logit_control.bias[0].token_id",
         ["90", "0 to 89"]),
        (asked(logit_bias={"x": 1.0}), "logit_bias['x']", ["0 to 89"]),
        (asked(None, {"top_k": 97}), "distribution.top_k", ["97", "1 to 96", "all"]),
        (asked(logprobs=51), "top_logprobs", ["51", "up to 50", "`distribution`"]),
        (asked(logprobs=-1), "top_logprobs", ["all 96", "up to 50", "`distribution`"]),
        (asked(BIAS, beam_search=True), "use_beam_search", ["logit_control"]),
        (asked(None, {}, beam_search=True), "use_beam_search", ["distribution"]),
        (asked(logit_bias={"1": 1.0}, beam_search=True), "use_beam_search", ["logit_bias"]),
        (asked(None, {}, scored_token_ids=True), "logprob_token_ids", ["distribution"]),
        (asked(SUPPRESS, scored_token_ids=True), "logprob_token_ids", ["may fail"]),
        (asked({"force": {"token_ids": [1]}}, scored_token_ids=True), "logprob_token_ids",
         ["may fail"]),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(
    request_: Asked, param: str, words: list[str], planner: Planner
) -> None:
    planner.settings = Settings(max_top_logprobs=50)
    with pytest.raises(BadRequestError) as caught:
        planner.plan(request_)
    assert caught.value.param == param
    assert all(word in caught.value.message for word in words), caught.value.message


def test_patterns_beyond_the_devices_room_are_refused_for_good(
    planner: Planner,
) -> None:
    planner.patterns.limit = 6
    control: dict[str, Any] = {"suppress": [{"text": "abc"}], "bias": [{"text": "de", "add": 1}]}
    planner.plan(asked(control)).close()
    control["suppress"].append({"text": "fg"})
    with pytest.raises(BadRequestError, match="of 7 bytes are too many; allowed: 6 bytes"):
        planner.plan(asked(control))


@pytest.mark.parametrize(("cap", "most"), [(50, 50), (1000, WIDTH), (0, 0)])
def test_the_cap_on_alternatives(cap: int, most: int, planner: Planner) -> None:
    planner.settings = Settings(max_top_logprobs=cap)
    planner.plan(asked(logprobs=most))
    with pytest.raises(BadRequestError):
        planner.plan(asked(logprobs=most + 1))
    if most == WIDTH:
        planner.plan(asked(logprobs=-1))


def test_a_huge_top_k_is_echoed_in_part(planner: Planner) -> None:
    with pytest.raises(BadRequestError) as caught:
        planner.plan(asked(None, {"top_k": 10**3000}))
    assert len(caught.value.message) < 500


@pytest.mark.parametrize("at", ["logits", "residual"])
async def test_a_steered_request_sees_whether_its_vector_was_there(
    at: str, planner: Planner
) -> None:
    await planner.vectors.put("calm", safetensors(layer_2=[1, 2, 3, 4]))
    steer = {"vector": "calm", "strength": 1.0, "at": at}
    assert planner.plan(asked({"steer": [steer]})).spec == spec_of()


async def test_a_model_that_cannot_be_steered_says_why(
    tmp_path: Path, engine: FakeEngine, planner: Planner
) -> None:
    support = ResidualSupport("its layers are strange")
    planner.vectors = VectorRegistry(VectorStore(tmp_path), engine, model_facts(), support)
    await planner.vectors.put("calm", safetensors(layer_2=[1, 2, 3, 4]))
    planner.plan(asked(STEER)).close()
    steer = [*STEER["steer"], {"vector": "calm", "strength": 1.0, "at": "residual"}]
    with pytest.raises(BadRequestError, match="its layers are strange") as caught:
        planner.plan(asked({"steer": steer}))
    assert caught.value.param == "logit_control.steer[1].at"
    with pytest.raises(BadRequestError, match="beam search"):
        planner.plan(asked(STEER, beam_search=True))


def test_an_unknown_vector_is_named_at_its_path(planner: Planner) -> None:
    with pytest.raises(NotFoundError) as caught:
        planner.plan(asked(STEER))
    assert "calm" in caught.value.message
    assert caught.value.code == "vector_not_found"
    assert caught.value.param == "logit_control.steer[0].vector"


def test_alternatives_of_a_prompt_have_the_cap_too(planner: Planner) -> None:
    planner.settings = Settings(max_top_logprobs=4)
    with pytest.raises(BadRequestError) as refused:
        planner.plan(asked(prompt_logprobs=5))
    assert refused.value.param == "prompt_logprobs"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"arrow": True}, "distribution"),
        ({"arrow": True, "distribution": {"encoding": "base64"}}, "distribution.encoding"),
        ({"distribution": {"compression": "zstd"}}, "distribution.compression"),
    ],
)
def test_what_has_no_meaning_in_the_form_asked_for_is_refused(
    planner: Planner, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(BadRequestError) as refused:
        planner.plan(asked(**fields))
    assert refused.value.param == param


async def test_a_forced_text_is_made_tokens_beside_the_loop(planner: Planner) -> None:
    threads: list[int] = []

    def encode(text: str) -> list[int]:
        threads.append(threading.get_ident())
        return [len(text)]

    planner.encode = encode
    control = LogitControl.model_validate({"force": {"text": "abc"}})
    knowing = await planner.knowing(control)
    plan = knowing.plan(asked({"force": {"text": "abc"}}))
    assert plan.program == program_of(force=(3,))
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()
    assert await planner.knowing(None) is planner
