"""Additive bias on four tokens whose probabilities can be worked out by hand."""

from __future__ import annotations

import pytest
import torch

from logit_processors.control import between
from logit_processors.controls.bias import apply_bias
from logit_processors.host_text import apply_to_set
from logit_processors.program import Program
from tests.entries import bias_text, bias_token, program_of
from tests.unit_support import FOUR, INF, run_programs, same

# Probabilities 1/8, 1/8, 1/4, 1/2.
EIGHTHS = torch.tensor([[1.0, 1.0, 2.0, 4.0]]).log()
LOG2 = torch.tensor(2.0).log().item()


def test_adds_change_the_odds_as_worked_out() -> None:
    logits = apply_bias(EIGHTHS.clone(), torch.tensor([[0, 3]]), torch.tensor([[LOG2, -2 * LOG2]]))
    # 2 : 1 : 2 : 1
    torch.testing.assert_close(logits.softmax(-1), torch.tensor([[2.0, 1.0, 2.0, 1.0]]) / 6)


def test_a_token_named_twice_gets_the_sum() -> None:
    once = apply_bias(torch.zeros(1, 4), torch.tensor([[1]]), torch.tensor([[3.0]]))
    twice = apply_bias(torch.zeros(1, 4), torch.tensor([[1, 1]]), torch.tensor([[1.0, 2.0]]))
    assert same(once, twice)
    assert twice.tolist() == [[0.0, 3.0, 0.0, 0.0]]


def test_each_row_gets_its_own_and_in_place() -> None:
    logits = torch.zeros(2, 4)
    returned = apply_bias(
        logits, torch.tensor([[0, 1], [2, 0]]), torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    )
    assert returned is logits
    assert logits.tolist() == [[1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0]]


def test_a_token_that_a_grammar_masked_stays_masked() -> None:
    logits = apply_bias(torch.tensor([[-INF, 0.0]]), torch.tensor([[0]]), torch.tensor([[100.0]]))
    assert logits.tolist() == [[-INF, 0.0]]


def test_a_set_is_raised_in_one_row_only() -> None:
    logits = torch.zeros(2, 4)
    assert apply_to_set(logits, 1, torch.tensor([0, 3]), 1.5) is logits
    assert logits.tolist() == [[0.0] * 4, [1.5, 0.0, 0.0, 1.5]]


def test_an_empty_set_changes_nothing() -> None:
    logits = EIGHTHS.clone()
    apply_to_set(logits, 0, torch.tensor([], dtype=torch.int64), 5.0)
    assert same(logits, EIGHTHS)


@pytest.mark.parametrize(
    "program",
    [
        program_of(token_bias=(bias_token(0, 0.0), bias_token(3, 0.0))),
        program_of(text_bias=(bias_text("ab", 0.0),)),
        program_of(token_bias=(bias_token(0, 9.0, between(1)), bias_token(1, 9.0, between(3, 5)))),
        program_of(token_bias=(bias_token(2, 7.5), bias_token(2, -7.5))),
    ],
    ids=["token 0", "text 0", "windows elsewhere", "sums to 0"],
)
def test_a_bias_of_nothing_is_no_bias(program: Program) -> None:
    assert same(run_programs([program], EIGHTHS), EIGHTHS)


def test_equal_entries_are_their_sum() -> None:
    many = program_of(token_bias=(bias_token(1, 0.25),) * 16)
    one = program_of(token_bias=(bias_token(1, 4.0),))
    assert same(run_programs([many], EIGHTHS), run_programs([one], EIGHTHS))


def test_a_text_and_its_only_token_add_up() -> None:
    # Token 3 is the only one that advances or completes " ".
    program = program_of(token_bias=(bias_token(3, 1.0),), text_bias=(bias_text(" ", 2.0),))
    raised = run_programs([program], torch.zeros(1, 4), vocabulary=FOUR)
    assert raised.tolist() == [[0.0, 0.0, 0.0, 3.0]]
