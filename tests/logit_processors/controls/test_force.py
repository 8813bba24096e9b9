"""Forced tokens by slot: written, overwritten, looked up, and all that a row is left."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from logit_processors.control import Phase
from logit_processors.controls.force import apply_force
from tests.entries import program_of
from tests.unit_support import INF, pipeline_of, rows_of

forces = st.lists(st.lists(st.integers(0, 9), max_size=9), min_size=1, max_size=6)


@given(forces, forces)
def test_a_slot_has_the_tokens_written_last(first: list[list[int]], last: list[list[int]]) -> None:
    slots = max(len(first), len(last))
    pipeline = pipeline_of(slots, kernels=False)
    written: list[list[int]] = [[] for _ in range(slots)]
    for slot, force in (*enumerate(first), *enumerate(last)):
        pipeline.set(slot, program_of(force=force))
        written[slot] = force
    for position in range(-2, 11):
        rows = rows_of(range(slots), [position] * slots)
        logits = pipeline.apply(torch.zeros(slots, 10), rows, Phase.FORCE)
        for row, tokens in zip(logits, written, strict=True):
            left = tokens[position : position + 1] if position >= 0 else []
            assert (row > -INF).nonzero().squeeze(1).tolist() == (left or list(range(10)))


def test_all_but_the_forced_token_are_gone() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0], [4.0, -INF, 6.0], [7.0, 8.0, 9.0]])
    apply_force(logits, torch.tensor([0, 1, 2]), torch.tensor([True, True, False]))
    assert logits.tolist() == [[1.0, -INF, -INF], [-INF, -INF, -INF], [7.0, 8.0, 9.0]]
