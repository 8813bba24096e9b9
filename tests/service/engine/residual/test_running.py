"""A runner's steps: prepared where the model is about to run, ended with the worker's call."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import Identity, Module
from vllm.v1.core.sched.output import NewRequestData, SchedulerOutput
from vllm.v1.worker.gpu.input_batch import InputBatch
from vllm.v1.worker.gpu.model_runner import GPUModelRunner as V2ModelRunner
from vllm.v1.worker.gpu_model_runner import GPUModelRunner as V1ModelRunner

from logit_processors.residual import StreamRequest
from service.engine.residual.hooks import PLACE, LayerHooks
from service.engine.residual.running import (
    RunningSteps,
    follow,
    followed_v1,
    followed_v2,
    steps_of,
)
from service.engine.residual.step import StepLayout
from tests.entries import steer_residual
from tests.service.engine.residual.simulation import OWN, SIZE, Simulation, params
from tests.vllm_objects import input_batch

BATCH = input_batch([0], [0])
"""V2's batch of one request."""
(NAME,) = BATCH.req_ids
STEERS_LAST_LAYER = StreamRequest((steer_residual("a", 1.0, (OWN[-1],)),))


@pytest.fixture
def layers() -> list[Module]:
    made: list[Module] = [Identity() for _ in OWN]
    for at, layer in enumerate(made):
        layer.register_buffer(PLACE, torch.tensor([at], dtype=torch.int32), persistent=False)
    return made


@pytest.fixture
def steps(simulation: Simulation, layers: list[Module]) -> RunningSteps:
    return RunningSteps(simulation.stream, LayerHooks(layers, SIZE, removable=True))


def scheduled(name: str | None = None, finished: str | None = None) -> SchedulerOutput:
    """Return a step in which a steered request begins, and another has ended."""
    output = SchedulerOutput.make_empty()
    if name is not None:
        new = NewRequestData(
            req_id=name,
            prompt_token_ids=[1],
            mm_features=[],
            sampling_params=params(STEERS_LAST_LAYER),
            pooling_params=None,
            block_ids=([],),
            num_computed_tokens=0,
            lora_request=None,
        )
        output.scheduled_new_reqs.append(new)
    if finished is not None:
        output.finished_req_ids.add(finished)
    return output


def hooked(layers: list[Module]) -> list[int]:
    return [at for at, layer in enumerate(layers) if layer._forward_hooks]


def test_a_step_has_its_hooks_until_the_worker_is_through(
    steps: RunningSteps, simulation: Simulation, layers: list[Module]
) -> None:
    def fail() -> None:
        with steps.running(scheduled(NAME)):
            steps.begin(StepLayout.of_v2(BATCH))
            assert hooked(layers) == [len(OWN) - 1]
            assert not simulation.stream.is_idle(len(OWN) - 1)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert all(simulation.stream.is_idle(at) for at in range(len(OWN)))
    with steps.running(scheduled(finished=NAME)):
        steps.begin(StepLayout.of_v2(BATCH))
        assert hooked(layers) == []


def test_v2_prepares_a_step_once_its_inputs_are_there(
    steps: RunningSteps, layers: list[Module]
) -> None:
    runner, other = (V2ModelRunner.__new__(V2ModelRunner) for _ in range(2))
    seen: list[list[int]] = []

    def prepare_attn(self: Any, given: InputBatch) -> str:
        seen.append(hooked(layers))
        return "prepared"

    followed = followed_v2(prepare_attn)
    follow(runner, steps)
    with steps.running(scheduled(NAME)):
        assert followed(other, BATCH) == "prepared"
        assert hooked(layers) == [0, 1, 2], "a draft model's step is none of the stream's"
        assert followed(runner, BATCH) == "prepared"
    assert seen == [[0, 1, 2]] * 2
    assert hooked(layers) == [len(OWN) - 1]


def test_v1_prepares_a_step_before_the_model_runs(
    steps: RunningSteps, layers: list[Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StepLayout, "of_v1", lambda _: StepLayout.of_v2(BATCH))
    runner, other = (V1ModelRunner.__new__(V1ModelRunner) for _ in range(2))
    seen: list[list[int]] = []

    def model_forward(self: Any, input_ids: str, *, positions: str) -> tuple[str, str]:
        seen.append(hooked(layers))
        return input_ids, positions

    followed = followed_v1(model_forward)
    follow(runner, steps)
    with steps.running(scheduled(NAME)):
        for each in (other, runner):
            assert followed(each, "ids", positions="places") == ("ids", "places")
    assert seen == [[0, 1, 2], [len(OWN) - 1]]


def test_one_runner_is_followed(steps: RunningSteps) -> None:
    runner = V2ModelRunner.__new__(V2ModelRunner)
    follow(runner, steps)
    assert steps_of(runner) is steps
    assert steps_of(V2ModelRunner.__new__(V2ModelRunner)) is None
