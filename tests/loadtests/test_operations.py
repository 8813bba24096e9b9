"""torch's operations against numpy in float64, and against values known on paper."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loadtests.operations import entropy, gather, kl_divergence, ranks
from logit_processors import measure
from tests.logit_processors.test_measure import SIZES, made_rows, reference
from tests.unit_support import INF

HALVES = torch.tensor([[0.5, 0.25, 0.25, 0.0]]).log()


@pytest.mark.parametrize("vocab", SIZES)
@pytest.mark.parametrize("masked", [0.0, 0.5, 0.99])
def test_measures_are_those_of_numpy(vocab: int, masked: float) -> None:
    logits, other = made_rows(vocab, 1, masked=masked), made_rows(vocab, 2)
    expected, expected_other = reference(logits), reference(other)
    logprobs, other_logprobs = measure.log_softmax(logits), measure.log_softmax(other)
    np.testing.assert_allclose(logprobs, expected, rtol=1e-5, atol=1e-5)
    p = np.exp(expected)
    with np.errstate(invalid="ignore"):
        terms = np.where(p > 0, p * expected, 0.0)
        gains = np.where(p > 0, p * (expected - expected_other), 0.0)
    np.testing.assert_allclose(entropy(logprobs), -terms.sum(1), rtol=1e-4, atol=1e-5)
    kl = kl_divergence(logprobs, other_logprobs)
    np.testing.assert_allclose(kl, gains.sum(1), rtol=1e-4, atol=1e-5)


def test_entropy_on_paper() -> None:
    rows = torch.cat(
        (HALVES, torch.zeros(1, 4).log_softmax(-1), torch.tensor([[0.0] + [-INF] * 3]))
    )
    assert entropy(rows).tolist() == pytest.approx([1.5 * log(2), 2 * log(2), 0.0])


def test_kl_on_paper() -> None:
    uniform = torch.full((1, 4), 0.25).log()
    # 1/2 log 2 + 1/4 log 1 + 1/4 log 1
    assert kl_divergence(HALVES, uniform).item() == pytest.approx(0.5 * log(2))
    assert kl_divergence(uniform, uniform).item() == 0.0
    assert kl_divergence(HALVES, HALVES).item() == 0.0


def test_kl_of_suppressing_a_token_is_the_log_of_what_is_left() -> None:
    base = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).log()
    controlled = measure.log_softmax(base.index_fill(1, torch.tensor([3]), -INF))
    assert kl_divergence(controlled, base).item() == pytest.approx(-log(0.6))


@given(st.integers(1, 50), st.integers(0, 1000), st.integers(1001, 2000))
def test_kl_is_never_negative_and_0_for_equal_rows(vocab: int, seed: int, other: int) -> None:
    rows = measure.log_softmax(made_rows(vocab, seed))
    assert (kl_divergence(rows, measure.log_softmax(made_rows(vocab, other))) >= 0).all()
    assert (kl_divergence(rows, rows.clone()) == 0).all()


@pytest.mark.parametrize("vocab", SIZES)
def test_ranks_count_the_tokens_strictly_above(vocab: int) -> None:
    rows = made_rows(vocab, 4, ties=True, masked=0.3)
    chosen = torch.tensor([0, vocab // 2, vocab - 1])
    values = rows.numpy()
    expected = [
        1 + int((row > row[token]).sum()) for row, token in zip(values, chosen, strict=True)
    ]
    assert ranks(rows, chosen).tolist() == expected
    gathered = [float(row[token]) for row, token in zip(values, chosen, strict=True)]
    assert gather(rows, chosen).tolist() == gathered


def test_tied_tokens_share_the_best_rank() -> None:
    rows = torch.tensor([[3.0, 1.0, 3.0, 2.0]]).repeat(4, 1)
    assert ranks(rows, torch.arange(4)).tolist() == [1, 4, 1, 3]
