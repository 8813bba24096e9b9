"""Steering in logit space, worked out by hand on four tokens."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from logit_processors.controls import Steer, TokenSuppress, Window
from logit_processors.directions import Directions
from logit_processors.program import Program
from logit_processors.steer import apply_steer, standardise
from tests.unit_support import INF, run_programs, same

LOGITS = torch.tensor([[0.5, -1.0, 2.0, 0.0]])
SCORES = torch.tensor([1.0, -1.0, 1.0, -1.0])  # mean 0, standard deviation 1 as they are


@pytest.fixture
def directions() -> Directions:
    made = Directions()
    made.put("up", SCORES)
    made.put("half", SCORES.flip(0) / 2)
    return made


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


def test_rows_get_their_own_vectors_and_the_rest_stay() -> None:
    logits = torch.zeros(3, 4)
    table = torch.stack((SCORES, torch.tensor([0.0, 0.0, 4.0, 0.0])))
    returned = apply_steer(
        logits,
        torch.tensor([2, 0]),
        table,
        torch.tensor([[0, 1], [1, 0]]),
        torch.tensor([[2.0, 0.5], [1.0, 0.0]]),
    )
    assert returned is logits
    assert logits.tolist() == [[0, 0, 4, 0], [0, 0, 0, 0], [2, -2, 4, -2]]
    assert same(table[0], SCORES)  # the table itself is shared and must not change


def test_strength_counts_standard_deviations(directions: Directions) -> None:
    steered = run_programs([Program(steer=(Steer("up", 1.5),))], LOGITS, directions=directions)
    torch.testing.assert_close(steered - LOGITS, 1.5 * SCORES[None])


def test_vectors_add_up(directions: Directions) -> None:
    both = Program(steer=(Steer("up", 1.0), Steer("half", -2.0), Steer("up", 0.5)))
    steered = run_programs([both], LOGITS, directions=directions)
    torch.testing.assert_close(steered - LOGITS, (1.5 * SCORES - SCORES.flip(0))[None])


@pytest.mark.parametrize(
    "entries",
    [(Steer("up", 0.0),), (Steer("up", 3.0, Window(1)),), (Steer("up", 2.0), Steer("up", -2.0))],
    ids=["strength 0", "another window", "there and back"],
)
def test_steering_by_nothing_is_off(entries: tuple[Steer, ...], directions: Directions) -> None:
    assert same(run_programs([Program(steer=entries)], LOGITS, directions=directions), LOGITS)


def test_a_masked_token_is_not_revived(directions: Directions) -> None:
    logits = torch.tensor([[-INF, 0.0, 0.0, 0.0]])
    program = Program(steer=(Steer("up", 1000.0),), token_suppress=(TokenSuppress(2),))
    steered = run_programs([program], logits, directions=directions)
    assert steered.tolist() == [[-INF, -1000.0, -INF, -1000.0]]
