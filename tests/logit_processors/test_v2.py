"""The V2 adapter's slots, without a kernel: what a runner hands over, on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from vllm.sampling_params import SamplingParams, StructuredOutputsParams

from logit_processors import v2
from logit_processors.controls import TextSuppress, TokenBias, TokenSuppress, Window
from logit_processors.places import Layout
from logit_processors.processor import ControlProcessor
from logit_processors.program import Program
from logit_processors.row_spec import ALIVE, BROKEN, EXHAUSTED
from logit_processors.vocabulary import Vocabulary
from tests.unit_support import CPU, FOUR, INF

SLOTS, VOCAB = 4, 6
PROMPT = 3
ALONE = Layout(CPU)
ADD_2 = Program(token_bias=(TokenBias(2, 1.5),))
NOTHING_LEFT = Program(token_suppress=tuple(TokenSuppress(token) for token in range(VOCAB)))


def make_processor(monkeypatch: pytest.MonkeyPatch, vocabulary: Vocabulary | None = None) -> Any:
    """Make the adapter as vLLM's V2 loader does, for a model without a tokenizer or with one."""
    monkeypatch.setattr(v2, "load_vocabulary", lambda model_config: vocabulary)
    states = SimpleNamespace(
        index_to_req_id={},
        device=torch.device("cpu"),
        max_num_reqs=SLOTS,
        prompt_len=SimpleNamespace(gpu=torch.full((SLOTS,), PROMPT)),
        all_token_ids=SimpleNamespace(gpu=torch.zeros(SLOTS, 8, dtype=torch.int32)),
    )
    return ControlProcessor(SimpleNamespace(model_config=None), states)


def params(wire: dict[str, Any] | None) -> SamplingParams:
    extra = None if wire is None else {"sensefield": {"program": wire}}
    return SamplingParams(extra_args=extra)


def step(slots: list[int], generated: list[int], drafts: Sequence[int] | None = None) -> Any:
    """Return the context of a step: which slot each request has, and how far it has come."""
    counts = [1 + number for number in drafts or [0] * len(slots)]
    places = [place for count in counts for place in range(count)]
    begun = np.repeat(generated, counts)
    return SimpleNamespace(
        idx_mapping_np=np.array(slots, np.int32),
        expanded_idx_mapping=torch.tensor(np.repeat(slots, counts), dtype=torch.int32),
        pos=torch.tensor(begun) + torch.tensor(places) + PROMPT - 1,
        input_ids=torch.zeros(sum(counts), dtype=torch.int32),
        expanded_local_pos=torch.tensor(places, dtype=torch.int32),
    )


def looked_at(context: Any) -> Any:
    """Return the input batch that a context is read from."""
    rows = len(context.pos)
    return SimpleNamespace(
        **vars(context), logits_indices=torch.arange(rows), positions=context.pos
    )


def part_of(context: Any, requests: slice, rows: slice) -> Any:
    """Return the context of a part of a step, as vLLM cuts one that is too large."""
    return SimpleNamespace(
        idx_mapping_np=context.idx_mapping_np[requests],
        **{
            name: getattr(context, name)[rows]
            for name in ("expanded_idx_mapping", "pos", "input_ids", "expanded_local_pos")
        },
    )


def test_each_row_gets_the_program_of_its_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = make_processor(monkeypatch)
    assert processor.add_request(3, params(ADD_2.to_wire()))
    assert not processor.add_request(1, params(None))
    logits = processor.apply(torch.zeros(2, VOCAB), step([1, 3], [0, 0]))
    assert logits.tolist() == [[0.0] * VOCAB, [0, 0, 1.5, 0, 0, 0]]
    assert [processor.has_program(row) for row in (0, 1)] == [False, True]


def test_windows_count_generated_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = make_processor(monkeypatch)
    late = Program(token_bias=(TokenBias(0, 1.0, Window(2, 3)),))
    for slot in range(SLOTS):
        processor.add_request(slot, params(late.to_wire()))
    logits = processor.apply(torch.zeros(SLOTS, VOCAB), step([0, 1, 2, 3], [0, 1, 2, 3]))
    assert logits[:, 0].tolist() == [0.0, 0.0, 1.0, 0.0]


def test_requests_that_have_ended_make_room_for_patterns(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM tells nobody that a request has ended: its slot is only not in use any more."""
    monkeypatch.setattr(v2, "POOL_BYTES", 0)
    monkeypatch.setattr(v2, "warm_up", lambda model_config, device: None)
    processor = make_processor(monkeypatch, FOUR)
    running = processor._states.index_to_req_id
    for slot in (0, 1, 2):
        running[slot] = str(slot)
        text = "abc"[slot] * 30
        processor.add_request(slot, params(Program(text_suppress=(TextSuppress(text),)).to_wire()))
    assert processor._slots.broken[:3].tolist() == [False, False, True]
    del running[0]
    processor.add_request(2, params(Program(text_suppress=(TextSuppress("c" * 30),)).to_wire()))
    assert processor._slots.broken[:3].tolist() == [False, False, False]


def test_a_slot_that_is_given_again_has_nothing_of_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    processor = make_processor(monkeypatch)
    processor.add_request(0, params(NOTHING_LEFT.to_wire()))
    processor.add_request(0, params(ADD_2.to_wire()))
    logits = processor.apply(torch.zeros(1, VOCAB), step([0], [0]))
    assert logits.tolist() == [[0, 0, 1.5, 0, 0, 0]]
    assert processor.alive(ALONE.places([0])).tolist() == [ALIVE]


def test_a_forced_token_is_all_that_the_sampler_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = make_processor(monkeypatch)
    force = Program(token_bias=(TokenBias(2, 1.5),), force=(2, 5))
    processor.add_request(1, params(force.to_wire()))
    processor.add_request(3, params(None))
    # The fourth row is of a prompt that is not through: nothing is chosen there.
    logits = processor.apply(torch.zeros(5, VOCAB), step([1, 1, 1, 1, 3], [0, 1, 2, -2, 0]))
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
    processor.add_request(0, params(Program(force=(2,)).to_wire()))
    logits = torch.zeros(1, VOCAB)
    logits[0, 2] = -INF
    processor.apply(logits, step([0], [0]))
    assert (logits == -INF).all()
    assert processor.alive(ALONE.places([0])).tolist() == [EXHAUSTED]


def test_rows_tell_how_their_programs_left_them(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = make_processor(monkeypatch)
    processor.add_request(0, params(NOTHING_LEFT.to_wire()))
    processor.add_request(1, params({"steer": [{"vector": "absent", "strength": 1.0}]}))
    processor.add_request(2, params(ADD_2.to_wire()))
    processor.apply(torch.zeros(3, VOCAB), step([2, 0, 1], [0, 0, 0]))
    assert processor.alive(ALONE.places([0, 1, 2])).tolist() == [ALIVE, EXHAUSTED, BROKEN]
    assert processor.alive(ALONE.places([2])).tolist() == [BROKEN]


GRAMMAR = SamplingParams(structured_outputs=StructuredOutputsParams(regex="a+"))


@pytest.mark.parametrize("neighbour", [None, ADD_2.to_wire()])
def test_what_counts_as_exhausted_does_not_depend_on_neighbours(
    monkeypatch: pytest.MonkeyPatch, neighbour: dict[str, Any] | None
) -> None:
    processor = make_processor(monkeypatch)
    processor.add_request(0, params(neighbour))
    assert processor.add_request(1, GRAMMAR)
    processor.add_request(2, params(None))
    logits = torch.zeros(3, VOCAB)
    logits[1:] = -INF
    processor.apply(logits, step([0, 1, 2], [0, 0, 0]))
    assert processor.alive(ALONE.places([0, 1, 2])).tolist() == [ALIVE, EXHAUSTED, ALIVE]


def test_a_step_without_control_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = make_processor(monkeypatch)
    processor.add_request(0, params(None))
    monkeypatch.setattr(v2, "exhausted", None)
    context = step([0], [0])
    processor.look_at(looked_at(context))
    assert processor.apply(torch.zeros(1, VOCAB), context).tolist() == [[0.0] * VOCAB]
    assert processor.alive(ALONE.places([0])).tolist() == [ALIVE]


def test_the_layout_looked_at_serves_the_rows_that_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    processor = make_processor(monkeypatch)
    processor.add_request(0, params(ADD_2.to_wire()))
    processor.add_request(3, params(None))
    context = step([3, 0], [4, 1])
    batch = SimpleNamespace(
        **{**vars(context), "input_ids": torch.zeros(9, dtype=torch.int32)},
        logits_indices=torch.tensor([5, 8]),  # the last of each request's tokens
        positions=torch.arange(9),
    )
    processor.look_at(batch)
    assert processor.run_programs(torch.zeros(1, VOCAB), ALONE.places([1])).tolist() == [
        [0, 0, 1.5, 0, 0, 0]
    ]
    processor.apply(torch.zeros(2, VOCAB), context)
    assert processor.run_programs(torch.zeros(1, VOCAB), ALONE.places([0])).tolist() == [
        [0.0] * VOCAB
    ]
    # The next step has a layout of its own, also where nothing looked at it before.
    processor.apply(torch.zeros(1, VOCAB), step([0], [2]))
    assert processor.run_programs(torch.zeros(1, VOCAB), ALONE.places([0])).tolist() == [
        [0, 0, 1.5, 0, 0, 0]
    ]


EACH_ITS_OWN = Program(
    token_bias=tuple(TokenBias(at, 1.0 + at, Window(at, at + 1)) for at in range(VOCAB))
)
"""Raises token n at position n only, by n + 1."""


def raised(*positions: int) -> list[list[float]]:
    return [[(1.0 + at) * (at == token) for token in range(VOCAB)] for at in positions]


def test_each_drafted_row_stands_at_its_own_position(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = make_processor(monkeypatch)
    processor.add_request(2, params(EACH_ITS_OWN.to_wire()))
    processor.add_request(0, params(None))
    processor.add_request(1, params(EACH_ITS_OWN.to_wire()))
    context = step([2, 0, 1], [1, 0, 0], drafts=[2, 1, 1])
    processor.look_at(looked_at(context))
    logits = processor.apply(torch.zeros(7, VOCAB), context)
    nothing = [[0.0] * VOCAB] * 2
    assert logits.tolist() == raised(1, 2, 3) + nothing + raised(0, 1)
    layout = Layout(CPU, np.array([2, 1, 1]), torch.tensor([0, 3, 5, 7], dtype=torch.int32))
    some = processor.run_programs(torch.zeros(5, VOCAB), layout.places([2, 0]))
    assert some.tolist() == raised(0, 1, 1, 2, 3)


def test_a_step_that_is_verified_in_parts_is_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = make_processor(monkeypatch)
    # Leaves a token at its first position only; suppression begins at the second.
    late = tuple(TokenSuppress(token, Window(1)) for token in range(VOCAB))
    processor.add_request(0, params(Program(token_suppress=late).to_wire()))
    processor.add_request(1, params(None))
    processor.add_request(2, params({"steer": [{"vector": "absent", "strength": 1.0}]}))
    processor.add_request(3, params(EACH_ITS_OWN.to_wire()))
    slots, drafts = [1, 0, 3, 2], [1, 2, 1, 1]
    context = step(slots, [0, 0, 2, 0], drafts)
    processor.look_at(looked_at(context))
    # vLLM runs no processor on a part without programs: the first of the three.
    parts = [(slice(1, 3), slice(2, 7)), (slice(3, 4), slice(7, 9))]
    logits = [
        processor.apply(torch.zeros(rows.stop - rows.start, VOCAB), part_of(context, which, rows))
        for which, rows in parts
    ]
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
    processor.look_at(looked_at(step([1], [0])))
    assert processor.alive(ALONE.places([0])).tolist() == [ALIVE]
