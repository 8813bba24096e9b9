"""Suppression: probability exactly 0, whatever else is said of the token."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch

from logit_processors.controls.suppress import apply_suppress
from logit_processors.exhausted import exhausted
from logit_processors.host_text import apply_to_set
from tests.entries import bias_text, bias_token, program_of, suppress_text, suppress_token
from tests.unit_support import INF, run_programs, same

LOGITS = torch.tensor([[1.0, 2.0, 3.0, 4.0]])


def test_the_others_share_what_is_left() -> None:
    logits = apply_suppress(
        torch.tensor([[1.0, 1.0, 2.0, 4.0]]).log(), torch.tensor([[3]]), torch.tensor([[True]])
    )
    torch.testing.assert_close(logits.softmax(-1), torch.tensor([[0.25, 0.25, 0.5, 0.0]]))
    assert logits.softmax(-1)[0, 3].item() == 0.0


def test_what_does_not_apply_touches_nothing() -> None:
    logits = LOGITS.clone()
    # The padding of an entry table looks like this: token 0, not active.
    apply_suppress(logits, torch.zeros(1, 4, dtype=torch.int64), torch.zeros(1, 4).bool())
    assert same(logits, LOGITS)


@pytest.mark.parametrize("active", [[True, False], [False, True], [True, True]])
def test_one_active_entry_of_several_is_enough(active: list[bool]) -> None:
    logits = apply_suppress(LOGITS.clone(), torch.tensor([[2, 2]]), torch.tensor([active]))
    assert logits.tolist() == [[1.0, 2.0, -INF, 4.0]]


def test_each_row_has_its_own() -> None:
    logits = torch.zeros(2, 4)
    returned = apply_suppress(
        logits, torch.tensor([[0, 1], [3, 0]]), torch.tensor([[True, True], [True, False]])
    )
    assert returned is logits
    assert logits.tolist() == [[-INF, -INF, 0.0, 0.0], [0.0, 0.0, 0.0, -INF]]


def test_a_set_is_suppressed_in_one_row_only() -> None:
    logits = torch.zeros(2, 4)
    assert apply_to_set(logits, 0, torch.tensor([1, 2]), -INF) is logits
    assert logits.tolist() == [[0.0, -INF, -INF, 0.0], [0.0] * 4]


def test_suppression_wins_over_bias() -> None:
    program = program_of(
        token_bias=(bias_token(2, 100.0),),
        text_bias=(bias_text("ab", 100.0),),
        token_suppress=(suppress_token(2),),
    )
    assert run_programs([program], LOGITS)[0, 2].item() == -INF
    by_text = program_of(token_bias=(bias_token(2, 100.0),), text_suppress=(suppress_text("ab"),))
    assert run_programs([by_text], LOGITS).tolist() == [[1.0, 2.0, -INF, 4.0]]


def test_entries_mean_the_same_in_any_order() -> None:
    biases = (bias_token(0, 1.0), bias_token(2, 50.0), bias_token(0, 2.0))
    suppressed = (suppress_token(2), suppress_token(1), suppress_token(2))
    expected = [[4.0, -INF, -INF, 4.0]]
    for some in permutations(biases):
        for others in permutations(suppressed):
            program = program_of(token_bias=some, token_suppress=others)
            assert run_programs([program], LOGITS).tolist() == expected


def test_a_program_can_exhaust_its_row_and_no_other() -> None:
    everything = program_of(token_suppress=tuple(suppress_token(i) for i in range(4)))
    logits = run_programs([everything, None], LOGITS.repeat(2, 1))
    assert exhausted(logits).tolist() == [True, False]
    assert same(logits[1], LOGITS[0])
