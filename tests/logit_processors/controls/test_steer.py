"""Steering in logit space, worked out by hand on four tokens."""

from __future__ import annotations

import pytest
import torch

from logit_processors.control import between
from logit_processors.controls.steer import SteerEntry, apply_steer
from logit_processors.directions import Directions
from tests.entries import program_of, steer_logits, suppress_token
from tests.unit_support import INF, run_programs, same

LOGITS = torch.tensor([[0.5, -1.0, 2.0, 0.0]])
SCORES = torch.tensor([1.0, -1.0, 1.0, -1.0])  # mean 0, standard deviation 1 as they are


@pytest.fixture
def directions() -> Directions:
    made = Directions()
    made.put("up", SCORES)
    made.put("half", SCORES.flip(0) / 2)
    return made


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
    steered = run_programs(
        [program_of(steer=(steer_logits("up", 1.5),))], LOGITS, directions=directions
    )
    torch.testing.assert_close(steered - LOGITS, 1.5 * SCORES[None])


def test_vectors_add_up(directions: Directions) -> None:
    both = program_of(
        steer=(steer_logits("up", 1.0), steer_logits("half", -2.0), steer_logits("up", 0.5))
    )
    steered = run_programs([both], LOGITS, directions=directions)
    torch.testing.assert_close(steered - LOGITS, (1.5 * SCORES - SCORES.flip(0))[None])


@pytest.mark.parametrize(
    "entries",
    [
        (steer_logits("up", 0.0),),
        (steer_logits("up", 3.0, between(1)),),
        (steer_logits("up", 2.0), steer_logits("up", -2.0)),
    ],
    ids=["strength 0", "another window", "there and back"],
)
def test_steering_by_nothing_is_off(
    entries: tuple[SteerEntry, ...], directions: Directions
) -> None:
    assert same(run_programs([program_of(steer=entries)], LOGITS, directions=directions), LOGITS)


def test_a_masked_token_is_not_revived(directions: Directions) -> None:
    logits = torch.tensor([[-INF, 0.0, 0.0, 0.0]])
    program = program_of(steer=(steer_logits("up", 1000.0),), token_suppress=(suppress_token(2),))
    steered = run_programs([program], logits, directions=directions)
    assert steered.tolist() == [[-INF, -1000.0, -INF, -1000.0]]
