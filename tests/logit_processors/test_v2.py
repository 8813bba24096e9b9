"""The V2 adapter's slots, without a kernel: what a runner hands over, on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from vllm.sampling_params import SamplingParams, StructuredOutputsParams
from vllm.v1.worker.gpu.input_batch import InputBatch
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsProcRequestState

from logit_processors import device_text, v2
from logit_processors.control import between
from logit_processors.directions import Directions
from logit_processors.places import Layout
from logit_processors.processor import ControlProcessor
from logit_processors.program import Program
from logit_processors.row_spec import ALIVE, BROKEN, EXHAUSTED
from logit_processors.vocabulary import Vocabulary
from tests.entries import bias_token, program_of, steer_logits, suppress_text, suppress_token
from tests.unit_support import CPU, FOUR, INF
from tests.vllm_objects import (
    context_of,
    input_batch,
    program_wire,
    request_state,
    sampling_params,
    vllm_config,
)

SLOTS, VOCAB = 4, 6
PROMPT = 3
ALONE = Layout(CPU)
ADD_2 = program_of(token_bias=(bias_token(2, 1.5),))
STEERED = program_of(steer=(steer_logits("absent", 1.0),))
NOTHING_LEFT = program_of(token_suppress=tuple(suppress_token(token) for token in range(VOCAB)))


def make_processor(monkeypatch: pytest.MonkeyPatch, vocabulary: Vocabulary | None = None) -> Any:
    """Make the adapter as vLLM's V2 loader does, for a model without a tokenizer or with one."""
    monkeypatch.setattr(v2, "load_vocabulary", lambda model_config: vocabulary)
    states = LogitsProcRequestState.from_request_state(request_state(SLOTS, PROMPT, 8, CPU))
    return ControlProcessor(vllm_config(SLOTS), states)


def params(program: Program | None, vocabulary: Vocabulary = FOUR) -> SamplingParams:
    """Return the parameters of a request with a program, or without one."""
    return sampling_params(None if program is None else program_wire(program, vocabulary))


def step(slots: list[int], generated: list[int], drafts: Sequence[int] | None = None) -> InputBatch:
    """Return the input batch of a step: which slot each request has, and how far it has come."""
    return input_batch(slots, [number + PROMPT - 1 for number in generated], drafts)


def applied(processor: Any, batch: InputBatch) -> torch.Tensor:
    """Return what the processor makes of a step's logits of 0."""
    processor.look_at(batch)
    logits: torch.Tensor = processor.apply(
        torch.zeros(len(batch.logits_indices), VOCAB), context_of(batch)
    )
    return logits


def test_each_row_gets_the_program_of_its_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = make_processor(monkeypatch)
    assert processor.add_request(3, params(ADD_2))
    assert not processor.add_request(1, params(None))
    logits = applied(processor, step([1, 3], [0, 0]))
    assert logits.tolist() == [[0.0] * VOCAB, [0, 0, 1.5, 0, 0, 0]]
    assert [processor.has_program(row) for row in (0, 1)] == [False, True]


def test_windows_count_generated_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = make_processor(monkeypatch)
    late = program_of(token_bias=(bias_token(0, 1.0, between(2, 3)),))
    for slot in range(SLOTS):
        processor.add_request(slot, params(late))
    logits = applied(processor, step([0, 1, 2, 3], [0, 1, 2, 3]))
    assert logits[:, 0].tolist() == [0.0, 0.0, 1.0, 0.0]


def suppressing(letter: str) -> SamplingParams:
    return params(program_of(text_suppress=(suppress_text(letter * 30),)))


def test_requests_that_have_ended_make_room_for_patterns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_text, "POOL_BYTES", 0)  # room for 64 bytes
    processor = make_processor(monkeypatch, FOUR)
    for slot, letter in enumerate("abc"):
        processor.add_request(slot, suppressing(letter))
    assert processor._pipeline.status[:3].tolist() == [ALIVE, ALIVE, BROKEN]
    applied(processor, step([2], [0]))
    assert processor.alive(ALONE.places([0])).tolist() == [BROKEN]
    processor.end_all_but({1: "b", 2: "c"})
    processor.add_request(2, suppressing("c"))
    assert processor._pipeline.status[:3].tolist() == [ALIVE] * 3


def test_a_request_without_room_for_all_its_patterns_holds_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device_text, "POOL_BYTES", 0)
    processor = make_processor(monkeypatch, FOUR)
    three = tuple(suppress_text(letter * 30) for letter in "abc")
    processor.add_request(0, params(program_of(text_suppress=three)))
    assert processor._pipeline.status[0] == BROKEN
    processor.add_request(1, params(program_of(text_suppress=three[:2])))
    assert processor._pipeline.status[1] == ALIVE


def test_a_request_that_has_ended_holds_no_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    directions = Directions()
    directions.put("calm", torch.ones(VOCAB))
    monkeypatch.setattr(v2, "DIRECTIONS", directions)
    processor = make_processor(monkeypatch)
    processor.add_request(1, params(program_of(steer=(steer_logits("calm", 1.0),))))
    directions.drop("calm")
    assert directions._dropped
    processor.end_all_but({1: "still running"})
    assert directions._dropped
    processor.end_all_but({})
    assert not directions._dropped
    # The slot is as good as new.
    assert applied(processor, step([1], [0])).tolist() == [[0.0] * VOCAB]


def test_a_slot_that_is_given_again_has_nothing_of_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    processor = make_processor(monkeypatch)
    processor.add_request(0, params(NOTHING_LEFT))
    processor.add_request(0, params(ADD_2))
    logits = applied(processor, step([0], [0]))
    assert logits.tolist() == [[0, 0, 1.5, 0, 0, 0]]
    assert processor.alive(ALONE.places([0])).tolist() == [ALIVE]


def test_a_forced_token_is_all_that_the_sampler_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = make_processor(monkeypatch)
    force = program_of(token_bias=(bias_token(2, 1.5),), force=(2, 5))
    processor.add_request(1, params(force))
    processor.add_request(3, params(None))
    # The fourth row is of a prompt that is not through: nothing is chosen there.
    logits = applied(processor, step([1, 1, 1, 1, 3], [0, 1, 2, -2, 0]))
    biased = [0, 0, 1.5, 0, 0, 0]
    assert logits.tolist() == [
        [-INF, -INF, 1.5, -INF, -INF, -INF],
        [-INF, -INF, -INF, -INF, -INF, 0.0],
        biased,
        [0.0] * VOCAB,
        [0.0] * VOCAB,
    ]
    places = ALONE.places([0, 1])
    assert processor.run_programs(torch.zeros(2, VOCAB), places).tolist() == [biased, biased]
    assert processor.alive(places).tolist() == [ALIVE, ALIVE]


def test_a_forced_token_that_a_grammar_masks_is_not_revived(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    processor = make_processor(monkeypatch)
    processor.add_request(0, params(program_of(force=(2,))))
    logits = torch.zeros(1, VOCAB)
    logits[0, 2] = -INF
    batch = step([0], [0])
    processor.look_at(batch)
    processor.apply(logits, context_of(batch))
    assert (logits == -INF).all()
    assert processor.alive(ALONE.places([0])).tolist() == [EXHAUSTED]


def test_rows_tell_how_their_programs_left_them(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = make_processor(monkeypatch)
    processor.add_request(0, params(NOTHING_LEFT))
    processor.add_request(1, params(STEERED))
    processor.add_request(2, params(ADD_2))
    applied(processor, step([2, 0, 1], [0, 0, 0]))
    assert processor.alive(ALONE.places([0, 1, 2])).tolist() == [ALIVE, EXHAUSTED, BROKEN]
    assert processor.alive(ALONE.places([2])).tolist() == [BROKEN]


GRAMMAR = SamplingParams(structured_outputs=StructuredOutputsParams(regex="a+"))


@pytest.mark.parametrize("neighbour", [None, ADD_2])
def test_what_counts_as_exhausted_does_not_depend_on_neighbours(
    monkeypatch: pytest.MonkeyPatch, neighbour: Program | None
) -> None:
    processor = make_processor(monkeypatch)
    processor.add_request(0, params(neighbour))
    assert processor.add_request(1, GRAMMAR)
    processor.add_request(2, params(None))
    logits = torch.zeros(3, VOCAB)
    logits[1:] = -INF
    batch = step([0, 1, 2], [0, 0, 0])
    processor.look_at(batch)
    processor.apply(logits, context_of(batch))
    assert processor.alive(ALONE.places([0, 1, 2])).tolist() == [ALIVE, EXHAUSTED, ALIVE]


def test_a_step_without_control_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = make_processor(monkeypatch)
    processor.add_request(0, params(None))
    monkeypatch.setattr(v2, "exhausted", None)
    assert applied(processor, step([0], [0])).tolist() == [[0.0] * VOCAB]
    assert processor.alive(ALONE.places([0])).tolist() == [ALIVE]


def test_the_layout_looked_at_serves_the_rows_that_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    processor = make_processor(monkeypatch)
    processor.add_request(0, params(ADD_2))
    processor.add_request(3, params(None))
    batch = replace(
        step([3, 0], [4, 1]),
        input_ids=torch.zeros(9, dtype=torch.int32),
        positions=torch.arange(9),
        logits_indices=torch.tensor([5, 8]),  # the last of each request's tokens
    )
    processor.look_at(batch)
    controlled = [[0, 0, 1.5, 0, 0, 0]]
    assert processor.run_programs(torch.zeros(1, VOCAB), ALONE.places([1])).tolist() == controlled
    processor.apply(torch.zeros(2, VOCAB), context_of(batch))
    assert processor.run_programs(torch.zeros(1, VOCAB), ALONE.places([0])).tolist() == [
        [0.0] * VOCAB
    ]
    # The next step has a layout of its own.
    applied(processor, step([0], [2]))
    assert processor.run_programs(torch.zeros(1, VOCAB), ALONE.places([0])).tolist() == controlled


EACH_ITS_OWN = program_of(
    token_bias=tuple(bias_token(at, 1.0 + at, between(at, at + 1)) for at in range(VOCAB))
)
"""Raises token n at position n only, by n + 1."""


def raised(*positions: int) -> list[list[float]]:
    return [[(1.0 + at) * (at == token) for token in range(VOCAB)] for at in positions]


def test_each_drafted_row_stands_at_its_own_position(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = make_processor(monkeypatch)
    processor.add_request(2, params(EACH_ITS_OWN))
    processor.add_request(0, params(None))
    processor.add_request(1, params(EACH_ITS_OWN))
    logits = applied(processor, step([2, 0, 1], [1, 0, 0], drafts=[2, 1, 1]))
    nothing = [[0.0] * VOCAB] * 2
    assert logits.tolist() == raised(1, 2, 3) + nothing + raised(0, 1)
    layout = Layout(CPU, np.array([2, 1, 1]), torch.tensor([0, 3, 5, 7], dtype=torch.int32))
    some = processor.run_programs(torch.zeros(5, VOCAB), layout.places([2, 0]))
    assert some.tolist() == raised(0, 1, 1, 2, 3)


def test_a_step_that_is_verified_in_parts_is_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = make_processor(monkeypatch)
    # Leaves a token at its first position only; suppression begins at the second.
    late = tuple(suppress_token(token, between(1)) for token in range(VOCAB))
    processor.add_request(0, params(program_of(token_suppress=late)))
    processor.add_request(1, params(None))
    processor.add_request(2, params(STEERED))
    processor.add_request(3, params(EACH_ITS_OWN))
    slots, drafts = [1, 0, 3, 2], [1, 2, 1, 1]
    batch = step(slots, [0, 0, 2, 0], drafts)
    processor.look_at(batch)
    # vLLM runs no processor on a part without programs: the first of the three.
    parts = [context_of(batch, 1, 3), context_of(batch, 3, 4)]
    # That the mappings are views of the step's is nothing to rely on.
    parts = [
        replace(part, expanded_idx_mapping=part.expanded_idx_mapping.clone()) for part in parts
    ]
    logits = [processor.apply(torch.zeros(len(part.pos), VOCAB), part) for part in parts]
    assert logits[0].tolist() == [[0.0] * VOCAB] + [[-INF] * VOCAB] * 2 + raised(2, 3)
    layout = Layout(CPU, np.array(drafts), torch.tensor([0, 2, 5, 7, 9], dtype=torch.int32))
    assert processor.alive(layout.places([0, 1, 2, 3])).tolist() == [
        *(ALIVE, ALIVE),
        *(ALIVE, EXHAUSTED, EXHAUSTED),
        *(ALIVE, ALIVE),
        *(BROKEN, BROKEN),
    ]
    # Rows are kept of the whole step after its last part has been verified.
    some = processor.run_programs(torch.zeros(2, VOCAB), layout.places([2]))
    assert some.tolist() == raised(2, 3)
    processor.look_at(step([1], [0]))
    assert processor.alive(ALONE.places([0])).tolist() == [ALIVE]
