"""Plans: what travels with a request, what memory is claimed and given back."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import REGISTRY
from vllm.sampling_params import SamplingParams, StructuredOutputsParams

from logit_processors.checks import ControlError
from logit_processors.control import Phase
from logit_processors.program import NO_PROGRAM, Program
from logit_processors.row_spec import PROMPT_KEY, RowSpec
from logit_processors.wire import WIRE_KEY
from service.errors import BadRequestError, SaturatedError
from service.planning.budget import BASE64_COPIES
from service.planning.planner import Planner
from tests.entries import entries_of, spec_of
from tests.service.planning.asking import BIAS, NOTHING, STEER, SUPPRESS, asked
from tests.unit_support import FakeEngine, safetensors


def test_asking_for_nothing_changes_nothing(planner: Planner, params: SamplingParams) -> None:
    plan = planner.plan(NOTHING)
    plan.apply_to(params, 100)
    assert (plan.program, plan.spec, list(plan.controls)) == (NO_PROGRAM, None, [])
    assert (params.logprobs, params.extra_args) == (None, None)
    assert planner.budget.promised_bytes == 0
    plan.close()


def test_program_and_rows_travel_with_the_request(planner: Planner, params: SamplingParams) -> None:
    params.extra_args = {"theirs": 1}
    plan = planner.plan(asked(BIAS, {"top_k": 5}, logit_bias={"4": -1.0}))
    plan.apply_to(params, 10)
    assert params.extra_args["theirs"] == 1
    wire = params.extra_args[WIRE_KEY]
    assert Program.from_wire(wire["program"]) == plan.program
    assert RowSpec.model_validate(wire["rows"]) == plan.spec == spec_of(5, controlled=True)
    assert params.logprobs == 0


async def test_residual_steering_travels_and_holds_its_place(
    planner: Planner, params: SamplingParams, engine: FakeEngine
) -> None:
    await planner.vectors.put("calm", safetensors(layer_2=[1, 2, 3, 4]))
    steer = {"vector": "calm", "strength": 1.5, "at": "residual", "when": {"from": -2}}
    plan = planner.plan(asked({"steer": [steer]}))
    plan.apply_to(params, 10)
    content = planner.vectors.content_of("calm")
    entry = {"vector": content, "strength": 1.5, "at": "residual", "when": {"from": -2}}
    wire = {"program": {"steer_residual": [entry]}, "rows": spec_of().model_dump()}
    assert params.extra_args[WIRE_KEY] == wire
    assert list(plan.controls) == ["steer_residual"]
    await planner.vectors.bring_residual([content])
    assert engine.residual == {content}
    await planner.vectors.delete("calm")
    assert content in engine.resident, "the running request still needs it"
    plan.close()


async def test_a_running_request_keeps_its_vector(planner: Planner, engine: FakeEngine) -> None:
    await planner.vectors.put("calm", safetensors(direction=[1, 2, 3, 4]))
    plan = planner.plan(asked(STEER))
    (sha256,) = plan.program.vectors(Phase.ADD)
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
    planner: Planner, params: SamplingParams
) -> None:
    request = asked(None, {"top_k": 10}, stream=True, choices=2)
    plan = planner.plan(request)
    plan.apply_to(params, 50)
    # 10 entries of a float32 and an int32.
    assert planner.budget.promised_bytes == 10 * 8 * 50 * 2
    plan.close()
    plan.close()
    assert planner.budget.promised_bytes == 0


def test_a_request_that_does_not_fit_is_refused(planner: Planner, params: SamplingParams) -> None:
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
    planner: Planner, params: SamplingParams
) -> None:
    planner.plan(asked(SUPPRESS)).apply_to(params, 10**9)
    assert params.extra_args[WIRE_KEY]["rows"] == spec_of().model_dump()
    assert planner.budget.promised_bytes == 0


def test_a_prompts_rows_are_claimed_when_its_length_is_known(
    planner: Planner, params: SamplingParams
) -> None:
    plan = planner.plan(asked(distribution={"top_k": 5, "prompt": True}, stream=True))
    plan.apply_to(params, 10)
    assert params.prompt_logprobs == 1
    assert params.skip_reading_prefix_cache
    assert params.extra_args[WIRE_KEY][PROMPT_KEY] == spec_of(5, controlled=True).model_dump()
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


def test_the_limit_is_for_all_prompts_of_a_request(
    planner: Planner, params: SamplingParams
) -> None:
    plan = planner.plan(asked(None, {"top_k": 10}, stream=True))
    plan.apply_to(params, 60)
    plan.apply_to(params, 60)
    with pytest.raises(BadRequestError, match="10080 bytes") as refused:
        plan.apply_to(params, 6)
    assert refused.value.param == "distribution"
    plan.close()
    assert planner.budget.promised_bytes == 0


@pytest.mark.parametrize("fields", [{}, {"stream": True}, {"arrow": True, "distribution": {}}])
def test_only_what_streams_shows_when_it_no_longer_waits(
    fields: dict[str, Any], planner: Planner
) -> None:
    def queued() -> float:
        return REGISTRY.get_sample_value("sensefield_queued_requests") or 0.0

    before = queued()
    plan = planner.plan(asked(**fields))
    plan.enter_queue()
    assert queued() == before + bool(fields)
    plan.leave_queue()
    plan.close()
    assert queued() == before


async def test_parts_of_a_request_force_tokens_and_hold_what_is_theirs(
    planner: Planner, engine: FakeEngine
) -> None:
    await planner.vectors.put("calm", safetensors(direction=[1, 2, 3, 4]))
    content = planner.vectors.content_of("calm")
    plan = planner.plan(asked(STEER | SUPPRESS, {"top_k": 1}))
    parts = [plan.forcing([1, 2]), plan.forcing([4])]
    for part in parts:
        part.apply_to(SamplingParams(), 10)
    forced = [entries_of(part.program, "force")[0].token_ids for part in parts]
    assert forced == [[1, 2], [4]]
    assert not entries_of(plan.program, "force")
    promised = planner.budget.promised_bytes
    parts[0].close()
    assert planner.budget.promised_bytes == promised / 2
    await planner.vectors.delete("calm")
    assert content in engine.resident, "the request still needs it"
    parts[1].close()
    assert planner.budget.promised_bytes == 0
    plan.close()
    with pytest.raises(ControlError, match="is suppressed at position 1"):
        plan.forcing([1, 3])


def test_masks_of_vllms_own_are_watched(planner: Planner) -> None:
    params = SamplingParams(
        structured_outputs=StructuredOutputsParams(choice=["a"]), allowed_token_ids=[1]
    )
    plan = planner.plan(asked(None))
    plan.apply_to(params, 10)
    assert plan.masks == ("allowed_token_ids", "structured_outputs")
    assert params.extra_args == {WIRE_KEY: {"rows": spec_of().model_dump()}}
    assert params.logprobs == 0
