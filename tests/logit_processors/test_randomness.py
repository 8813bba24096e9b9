"""Counter-based random numbers against SplitMix64 in Python's integers."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from logit_processors.randomness import uniform

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def mixed(state: int) -> int:
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return state ^ (state >> 31)


def expected(seed: int, position: int, stream: int) -> float:
    state = mixed((seed + GOLDEN * (stream + 1)) & MASK)
    return (mixed((state + GOLDEN * (position + 1)) & MASK) >> 40) / (1 << 24)


@given(
    st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**31 - 2)), min_size=1),
    st.integers(0, 5),
)
def test_each_number_follows_from_seed_position_and_stream(
    rows: list[tuple[int, int]], stream: int
) -> None:
    seeds, positions = (torch.tensor(column) for column in zip(*rows, strict=True))
    found = uniform(seeds, positions, stream)
    assert found.dtype == torch.float32
    assert found.tolist() == [expected(*row, stream) for row in rows]


def test_the_numbers_are_spread_evenly() -> None:
    # Of 20,000 numbers a tenth of the range has 2,000, give or take 6 deviations of 42.
    numbers = uniform(torch.full((20_000,), 7), torch.arange(20_000), 0)
    counts = torch.histc(numbers, 10, 0, 1)
    assert (counts - 2000).abs().max() < 260
    others = uniform(torch.full((20_000,), 8), torch.arange(20_000), 0)
    correlation = torch.corrcoef(torch.stack((numbers, others)))[0, 1]
    assert abs(correlation) < 0.05
