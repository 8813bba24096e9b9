"""Sums of biases: the same adds at every position, from one entry a token at most."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logit_processors.controls import ALWAYS, TokenBias, Window
from logit_processors.program import MAX_ENTRIES
from logit_processors.token_sums import summed_token_bias

WINDOWS = st.just(ALWAYS) | st.builds(Window, st.integers(0, 6), st.none() | st.integers(7, 9))
ENTRIES = st.lists(st.builds(TokenBias, st.integers(0, 2), st.floats(-100, 100), WINDOWS))


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([], []),
        (
            [TokenBias(7, 1.5), TokenBias(7, -0.5), TokenBias(8, 1.0)],
            [(7, 1.0, ALWAYS), (8, 1.0, ALWAYS)],
        ),
        (
            [TokenBias(7, 1.0), TokenBias(7, 2.0, Window(0, 4))],
            [(7, 3.0, Window(0, 4)), (7, 1.0, Window(4))],
        ),
        (
            [TokenBias(7, 1.0, Window(1, 5)), TokenBias(7, 2.0, Window(3, 8))],
            [(7, 1.0, Window(1, 3)), (7, 3.0, Window(3, 5)), (7, 2.0, Window(5, 8))],
        ),
        # Windows that meet and agree are one; what cancels is not there.
        (
            [TokenBias(7, 2.0, Window(0, 4)), TokenBias(7, 2.0, Window(4, 9))],
            [(7, 2.0, Window(0, 9))],
        ),
        ([TokenBias(7, 2.0), TokenBias(7, -2.0, Window(3))], [(7, 2.0, Window(0, 3))]),
        ([TokenBias(7, 0.0)], []),
    ],
    ids=["none", "same window", "one within", "overlap", "meeting", "cancelled", "zero"],
)
def test_sums_on_paper(entries: list[TokenBias], expected: list[tuple[int, float, Window]]) -> None:
    assert summed_token_bias(entries) == expected


@given(ENTRIES, st.integers(0, 10))
def test_a_token_has_one_entry_that_is_the_exact_sum(
    entries: list[TokenBias], position: int
) -> None:
    active: dict[int, float] = {}
    for token_id, add, when in summed_token_bias(entries):
        if when.covers(position):
            assert token_id not in active
            active[token_id] = add
    for token_id in range(3):
        exact = sum(
            Fraction(e.add) for e in entries if e.token_id == token_id and e.when.covers(position)
        )
        assert active.get(token_id, 0.0) == float(exact)


def test_a_program_of_nothing_but_windows_of_one_token_stays_small() -> None:
    entries = [TokenBias(1, 0.1, Window(at, 5000 - at)) for at in range(MAX_ENTRIES)]
    sums = summed_token_bias(entries)
    assert len(sums) == 2 * MAX_ENTRIES - 1
    assert [add for _, add, _ in sums[:2]] == [0.1, 0.2]
