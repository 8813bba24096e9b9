"""Forced tokens by slot: written, overwritten, looked up, and all that a row is left."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from logit_processors.force import ForceTable, apply_force
from tests.unit_support import CPU, INF

forces = st.lists(st.lists(st.integers(0, 9), max_size=9), min_size=1, max_size=6)


@given(forces, forces)
def test_a_slot_has_the_tokens_written_last(first: list[list[int]], last: list[list[int]]) -> None:
    slots = max(len(first), len(last))
    table = ForceTable(slots, CPU)
    written: list[list[int]] = [[] for _ in range(slots)]
    for force in (*enumerate(first), *enumerate(last)):
        table.write(*force)
        written[force[0]] = force[1]
    assert table.used.tolist() == [bool(tokens) for tokens in written]
    for position in range(-2, 11):
        token_ids, active = table.at(torch.arange(slots), torch.full((slots,), position))
        for slot, tokens in enumerate(written):
            assert bool(active[slot]) is (0 <= position < len(tokens))
            if active[slot]:
                assert token_ids[slot] == tokens[position]


def test_a_table_is_as_wide_as_the_longest_list_that_is_there() -> None:
    table = ForceTable(2, CPU)
    table.write(0, [5, 6])
    table.write(1, list(range(100)))
    table.write(1, [])
    assert table.ids.tolist() == [[5, 6, 0, 0], [0, 1, 2, 3]]
    assert table.at(torch.tensor([0, 1]), torch.tensor([1, 1]))[1].tolist() == [True, False]


def test_all_but_the_forced_token_are_gone() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0], [4.0, -INF, 6.0], [7.0, 8.0, 9.0]])
    apply_force(logits, torch.tensor([0, 1, 2]), torch.tensor([True, True, False]))
    assert logits.tolist() == [[1.0, -INF, -INF], [-INF, -INF, -INF], [7.0, 8.0, 9.0]]
