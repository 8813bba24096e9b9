"""Plans: what is checked, what rows are kept, what memory is claimed and given back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from logit_processors.controls import WIRE_KEY, Program
from logit_processors.row_spec import DENSE, PROMPT_KEY, RowSpec
from service.errors import BadRequestError, NotFoundError, SaturatedError
from service.limits import BASE64_COPIES, Budget
from service.plan import Asked, Planner, prompt_spec, request_bytes, row_spec
from service.schemas.control import LogitControl
from service.schemas.distribution import DistributionRequest
from service.settings import Settings
from service.vectors.registry import VectorRegistry
from service.vectors.residual_bank import ResidualSupport
from service.vectors.store import VectorStore
from tests.unit_support import FakeEngine, model_facts, safetensors

VOCAB, WIDTH = 90, 96  # a model may pad its logits
NOTHING = Asked(None, None, None, None, "top_logprobs", False, 1, False, False)
SUPPRESS: dict[str, Any] = {"suppress": [{"token_id": 3}]}
BIAS: dict[str, Any] = {"bias": [{"token_id": 3, "add": 1.0}]}
STEER: dict[str, Any] = {"steer": [{"vector": "calm", "strength": 1.0}]}


def asked(
    control: dict[str, Any] | None = None,
    distribution: dict[str, Any] | None = None,
    **fields: Any,
) -> Asked:
    return replace(
        NOTHING,
        control=None if control is None else LogitControl.model_validate(control),
        distribution=(
            None if distribution is None else DistributionRequest.model_validate(distribution)
        ),
        **fields,
    )


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def planner(tmp_path: Path, engine: FakeEngine) -> Planner:
    settings = Settings(vectors_dir=tmp_path, max_top_logprobs=None)
    support = ResidualSupport(None, engine.residual_capacity)
    vectors = VectorRegistry(VectorStore(tmp_path), engine, model_facts(), support)
    budget = Budget(10_000, 15_000)
    return Planner(settings, vectors, VOCAB, WIDTH, budget, lambda text: [len(text)])


@pytest.fixture
def params() -> SimpleNamespace:
    """The part of vLLM's SamplingParams that a plan touches."""
    return SimpleNamespace(logprobs=None, extra_args=None)


def test_asking_for_nothing_changes_nothing(planner: Planner, params: SimpleNamespace) -> None:
    plan = planner.plan(NOTHING)
    plan.apply_to(params, 100)
    assert (plan.program, plan.spec, list(plan.controls)) == (None, None, [])
    assert (params.logprobs, params.extra_args) == (None, None)
    assert planner.budget.promised_bytes == 0
    plan.close()


def test_program_and_rows_travel_with_the_request(
    planner: Planner, params: SimpleNamespace
) -> None:
    params.extra_args = {"theirs": 1}
    plan = planner.plan(asked(BIAS, {"top_k": 5}, logit_bias={"4": -1.0}))
    plan.apply_to(params, 10)
    assert params.extra_args["theirs"] == 1
    wire = params.extra_args[WIRE_KEY]
    assert Program.from_wire(wire["program"]) == plan.program
    assert RowSpec.from_wire(wire["rows"]) == plan.spec == RowSpec(5, controlled=True)
    assert params.logprobs == 0


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (asked(), None),
        (asked(BIAS), None),
        (asked(SUPPRESS), RowSpec()),
        (asked({"suppress": [{"text": "a"}]}), RowSpec()),
        (asked({"bias": [{"text": "a", "add": 1.0}]}), RowSpec()),
        (asked(None, {}), RowSpec(20, controlled=True)),
        (asked(None, {"stages": ["base"]}), RowSpec(20, base=True)),
        (asked(None, {"stages": ["controlled", "base"]}), RowSpec(20, True, True)),
        (asked(None, {"top_k": "all"}), RowSpec(DENSE, controlled=True)),
        (asked(None, {"dtype": "float16"}), RowSpec(20, controlled=True, half=True)),
        (asked(logprobs=0), RowSpec(0, base=True)),
        (asked(logprobs=5), RowSpec(5, base=True)),
        (asked(logprobs=-1), RowSpec(DENSE, base=True)),
        (asked(None, {"top_k": 3}, logprobs=5), RowSpec(5, True, True)),
        (asked(None, {"top_k": 30}, logprobs=5), RowSpec(30, True, True)),
        (asked(None, {"top_k": 3}, logprobs=-1), RowSpec(DENSE, True, True)),
        (asked(None, {"top_k": "all"}, logprobs=5), RowSpec(DENSE, True, True)),
        # OpenAI's logprobs are served from the same rows and stay exact.
        (asked(None, {"dtype": "float16"}, logprobs=5), RowSpec(20, True, True)),
        (asked(SUPPRESS, beam_search=True), None),
        (asked(SUPPRESS, scored_token_ids=True), None),
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
        (asked(logprobs=51), "top_logprobs", ["51", "up to 50"]),
        (asked(logprobs=-1), "top_logprobs", ["-1", "up to 50"]),
        (asked(BIAS, beam_search=True), "use_beam_search", ["logit_control"]),
        (asked(None, {}, beam_search=True), "use_beam_search", ["distribution"]),
        (asked(logit_bias={"1": 1.0}, beam_search=True), "use_beam_search", ["logit_bias"]),
        (asked(None, {}, scored_token_ids=True), "logprob_token_ids", ["distribution"]),
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


@pytest.mark.parametrize(("cap", "most"), [(None, WIDTH), (50, 50), (1000, WIDTH), (0, 0)])
def test_the_cap_on_alternatives(cap: int | None, most: int, planner: Planner) -> None:
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
    assert planner.plan(asked({"steer": [steer]})).spec == RowSpec()


async def test_residual_steering_travels_and_holds_its_place(
    planner: Planner, params: SimpleNamespace, engine: FakeEngine
) -> None:
    await planner.vectors.put("calm", safetensors(layer_2=[1, 2, 3, 4]))
    steer = {"vector": "calm", "strength": 1.5, "at": "residual", "when": {"from": -2}}
    plan = planner.plan(asked({"steer": [steer]}))
    plan.apply_to(params, 10)
    content = planner.vectors.content_of("calm")
    entry = {"vector": content, "strength": 1.5, "layers": None, "when": [-2, None]}
    assert params.extra_args[WIRE_KEY] == {"residual": [entry], "rows": RowSpec().to_wire()}
    assert list(plan.controls) == ["steer_residual"]
    await planner.vectors.bring_residual([content])
    assert engine.residual == {content}
    await planner.vectors.delete("calm")
    assert content in engine.resident, "the running request still needs it"
    plan.close()


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


async def test_a_running_request_keeps_its_vector(planner: Planner, engine: FakeEngine) -> None:
    await planner.vectors.put("calm", safetensors(direction=[1, 2, 3, 4]))
    plan = planner.plan(asked(STEER))
    assert plan.program is not None
    (sha256,) = {entry.vector for entry in plan.program.steer}
    await planner.vectors.delete("calm")
    assert engine.resident == {sha256}
    plan.close()
    await planner.vectors.put("other", safetensors(direction=[4, 3, 2, 1]))
    assert sha256 not in engine.resident


def test_kinds_of_control(planner: Planner) -> None:
    control = {
        "bias": [{"token_id": 1, "add": 1.0}, {"text": "a", "add": 1.0}],
        "suppress": [{"token_id": 2}, {"text": "b"}],
        "force": {"text": "a"},
    }
    assert list(planner.plan(asked(control)).controls) == [
        "token_bias",
        "text_bias",
        "token_suppress",
        "text_suppress",
        "force",
    ]
    assert list(planner.plan(asked(logit_bias={"1": 1.0})).controls) == ["token_bias"]


def test_memory_is_claimed_for_every_token_and_choice_and_given_back(
    planner: Planner, params: SimpleNamespace
) -> None:
    request = asked(None, {"top_k": 10}, stream=True, choices=2)
    plan = planner.plan(request)
    plan.apply_to(params, 50)
    # 10 entries of a float32 and an int32.
    assert planner.budget.promised_bytes == 10 * 8 * 50 * 2
    plan.close()
    plan.close()
    assert planner.budget.promised_bytes == 0


def test_a_request_that_does_not_fit_is_refused(planner: Planner, params: SimpleNamespace) -> None:
    request = asked(None, {"top_k": 10}, stream=True)
    with pytest.raises(BadRequestError) as caught:
        planner.plan(request).apply_to(params, 126)
    assert caught.value.param == "distribution"
    running = planner.plan(request)
    running.apply_to(params, 120)
    with pytest.raises(SaturatedError):
        planner.plan(request).apply_to(params, 120)
    running.close()
    planner.plan(request).apply_to(params, 120)


def test_rows_that_only_tell_whether_a_token_is_left_cost_nothing(
    planner: Planner, params: SimpleNamespace
) -> None:
    planner.plan(asked(SUPPRESS)).apply_to(params, 10**9)
    assert params.extra_args[WIRE_KEY]["rows"] == RowSpec().to_wire()
    assert planner.budget.promised_bytes == 0


def test_more_of_anything_never_takes_less_memory() -> None:
    def size(distribution: dict[str, Any], tokens: int = 10, **fields: Any) -> int:
        request = asked(None, distribution, **fields)
        spec = row_spec(request, can_fail=False)
        assert spec is not None
        return request_bytes(request, spec, WIDTH, tokens)

    base = size({"top_k": 10})
    assert base > 0
    assert size({"top_k": 11}) > base
    assert size({"top_k": 10, "stages": ["base", "controlled"]}) == 2 * base
    assert size({"top_k": 10}, tokens=20) == 2 * base
    assert size({"top_k": 10}, choices=3) == 3 * base
    assert size({"top_k": 10}, stream=True) < base
    assert size({"top_k": 10, "encoding": "json"}) > base
    assert size({"top_k": 10, "dtype": "float16"}) < base
    assert size({"top_k": 10}, logprobs=5) > base
    assert size({"top_k": 10}, logprobs=-1) > size({"top_k": 10}, logprobs=5)
    assert size({"top_k": "all", "dtype": "float16"}, stream=True) == 10 * WIDTH * 2


@pytest.mark.parametrize(
    ("wanted", "spec"),
    [
        (asked(), None),
        (asked(distribution={"top_k": 3}), None),
        (asked(distribution={"top_k": 3, "prompt": True}), RowSpec(3, controlled=True)),
        (asked(prompt_logprobs=0), RowSpec(0, base=True)),
        (asked(prompt_logprobs=-1), RowSpec(DENSE, base=True)),
        (asked(distribution={"top_k": 3}, prompt_logprobs=5), RowSpec(5, base=True)),
        (
            asked(distribution={"top_k": 7, "prompt": True}, prompt_logprobs=5),
            RowSpec(7, base=True, controlled=True),
        ),
        (asked(distribution={"prompt": True}, beam_search=True), None),
        (asked(prompt_logprobs=2, scored_token_ids=True), RowSpec(2, base=True)),
    ],
)
def test_what_is_kept_of_a_prompt(wanted: Asked, spec: RowSpec | None) -> None:
    assert prompt_spec(wanted) == spec


def test_a_prompts_rows_are_claimed_when_its_length_is_known(
    planner: Planner, params: SimpleNamespace
) -> None:
    plan = planner.plan(asked(distribution={"top_k": 5, "prompt": True}, stream=True))
    plan.apply_to(params, 10)
    assert params.prompt_logprobs == 1
    assert params.skip_reading_prefix_cache
    assert params.extra_args[WIRE_KEY][PROMPT_KEY] == RowSpec(5, controlled=True).to_wire()
    before = planner.budget.promised_bytes
    plan.claim_prompt(20)
    assert planner.budget.promised_bytes == before + 20 * 5 * 8 * BASE64_COPIES
    plan.close()
    assert planner.budget.promised_bytes == 0


def test_a_prompt_too_long_for_the_budget_is_refused(planner: Planner) -> None:
    plan = planner.plan(asked(distribution={"top_k": 5, "prompt": True}))
    with pytest.raises(BadRequestError) as refused:
        plan.claim_prompt(1000)
    assert refused.value.param == "distribution.prompt"
    plan.close()
    plan = planner.plan(asked(prompt_logprobs=5))
    with pytest.raises(BadRequestError) as refused:
        plan.claim_prompt(1000)
    assert refused.value.param == "prompt_logprobs"
    plan.close()


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
