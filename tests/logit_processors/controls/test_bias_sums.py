"""Sums of biases: the same adds at every position, from one entry a token at most."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logit_processors.control import ALWAYS, When, between
from logit_processors.controls.bias import BiasEntry, summed_token_bias
from logit_processors.wire import MAX_ENTRIES
from tests.entries import bias_token

WINDOWS = st.just(ALWAYS) | st.builds(between, st.integers(0, 6), st.none() | st.integers(7, 9))
ENTRIES = st.lists(st.builds(bias_token, st.integers(0, 2), st.floats(-100, 100), WINDOWS))


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([], []),
        (
            [bias_token(7, 1.5), bias_token(7, -0.5), bias_token(8, 1.0)],
            [(7, 1.0, ALWAYS), (8, 1.0, ALWAYS)],
        ),
        (
            [bias_token(7, 1.0), bias_token(7, 2.0, between(0, 4))],
            [(7, 3.0, between(0, 4)), (7, 1.0, between(4))],
        ),
        (
            [bias_token(7, 1.0, between(1, 5)), bias_token(7, 2.0, between(3, 8))],
            [(7, 1.0, between(1, 3)), (7, 3.0, between(3, 5)), (7, 2.0, between(5, 8))],
        ),
        # Windows that meet and agree are one; what cancels is not there.
        (
            [bias_token(7, 2.0, between(0, 4)), bias_token(7, 2.0, between(4, 9))],
            [(7, 2.0, between(0, 9))],
        ),
        ([bias_token(7, 2.0), bias_token(7, -2.0, between(3))], [(7, 2.0, between(0, 3))]),
        ([bias_token(7, 0.0)], []),
    ],
    ids=["none", "same window", "one within", "overlap", "meeting", "cancelled", "zero"],
)
def test_sums_on_paper(entries: list[BiasEntry], expected: list[tuple[int, float, When]]) -> None:
    wanted = [(token_id, add, when.bounds) for token_id, add, when in expected]
    assert summed_token_bias(entries) == wanted


@given(ENTRIES, st.integers(0, 10))
def test_a_token_has_one_entry_that_is_the_exact_sum(
    entries: list[BiasEntry], position: int
) -> None:
    active: dict[int, float] = {}
    for token_id, add, (start, stop) in summed_token_bias(entries):
        if start <= position < stop:
            assert token_id not in active
            active[token_id] = add
    for token_id in range(3):
        exact = sum(
            Fraction(e.add) for e in entries if e.token_id == token_id and e.covers(position)
        )
        assert active.get(token_id, 0.0) == float(exact)


def test_a_program_of_nothing_but_windows_of_one_token_stays_small() -> None:
    entries = [bias_token(1, 0.1, between(at, 5000 - at)) for at in range(MAX_ENTRIES)]
    sums = summed_token_bias(entries)
    assert len(sums) == 2 * MAX_ENTRIES - 1
    assert [add for _, add, _ in sums[:2]] == [0.1, 0.2]
