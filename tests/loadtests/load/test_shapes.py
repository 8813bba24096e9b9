"""Users over time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.load.shapes import SHAPES, ramp, soak, spike


def test_a_ramp_doubles_and_stays_as_long_at_each_step() -> None:
    assert [ramp(share / 10, 16) for share in range(10)] == [1, 1, 2, 2, 4, 4, 8, 8, 16, 16]
    assert [ramp(share / 4, 6) for share in range(4)] == [1, 2, 4, 6]


def test_a_spike_is_in_the_middle_third() -> None:
    assert [spike(share / 6, 16) for share in range(6)] == [4, 4, 16, 16, 4, 4]


def test_a_soak_never_changes() -> None:
    assert {soak(share / 6, 5) for share in range(6)} == {5}


@pytest.mark.parametrize("name", sorted(SHAPES))
@given(share=st.floats(0, 1), peak=st.integers(1, 1000))
def test_there_is_always_a_user_and_never_more_than_the_peak(
    name: str, share: float, peak: int
) -> None:
    assert 1 <= SHAPES[name](share, peak) <= peak
