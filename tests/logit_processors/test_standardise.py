"""Token scores in standard deviations, worked out by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from logit_processors.standardise import standardise
from tests.unit_support import INF


def test_scores_are_shifted_and_scaled() -> None:
    # Mean 3, deviations -3, -1, 1, 3: variance 5.
    expected = torch.tensor([-3.0, -1.0, 1.0, 3.0]) / 5**0.5
    torch.testing.assert_close(standardise(torch.tensor([0.0, 2.0, 4.0, 6.0])), expected)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=9))
def test_any_direction_gets_mean_0_and_deviation_1(values: list[float]) -> None:
    scores = torch.tensor(values)
    if scores.double().std(correction=0) <= 1e-3 * scores.double().abs().max():
        return  # all but constant: what is left is rounding
    standard = standardise(scores)
    assert standard.dtype == torch.float32
    assert standard.double().mean().abs() < 1e-6
    assert (standard.double().std(correction=0) - 1).abs() < 1e-6


@given(st.floats(0.01, 100), st.floats(-100, 100))
def test_the_length_of_a_vector_does_not_matter(scale: float, shift: float) -> None:
    scores = torch.tensor([3.0, -1.0, 0.5, 8.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(
        standardise(scores * scale + shift), standardise(scores), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    "scores", [[2.0, 2.0, 2.0], [0.0, 0.0], [float("nan"), 1.0], [INF, 1.0], [-INF, INF]]
)
def test_scores_that_name_no_direction_are_refused(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="no direction"):
        standardise(torch.tensor(scores))
