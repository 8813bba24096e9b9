"""The top k of rows on a CPU; its measures are tested with those of kernels (test_measured)."""

from __future__ import annotations

from math import log, nan

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from logit_processors.host_measure import HostRows
from tests.logit_processors.test_measure import made_rows

# Odd sizes: candidate groups are eighths of the vocabulary.
SIZES = (1, 7, 8, 33, 64, 257, 1003)


def top_k(logits: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the top k of ``[rows, vocab]`` values that are log-probabilities already."""
    return HostRows(logits, torch.zeros(len(logits), 2)).top_k(k)


def test_values_are_log_probabilities() -> None:
    # Shares 1/4, 1/2, 1/8, 1/8: the largest logit is log 4, the others sum with it to 2 of it.
    rows = HostRows(torch.tensor([[2.0, 4.0, 1.0, 1.0]]).log(), torch.tensor([[log(4), log(2)]]))
    values, token_ids = rows.top_k(2)
    assert values.tolist() == [pytest.approx([log(1 / 2), log(1 / 4)])]
    assert token_ids.tolist() == [[1, 0]]
    dense = torch.empty(1, 4, dtype=torch.float16)
    rows.write(dense)
    assert dense.exp().tolist() == [pytest.approx([1 / 4, 1 / 2, 1 / 8, 1 / 8], rel=1e-3)]


def assert_top_k(rows: torch.Tensor, k: int) -> None:
    """Values as numpy's sort has them; ids differ only where values are tied."""
    values, token_ids = top_k(rows, k)
    assert (values.dtype, token_ids.dtype) == (torch.float32, torch.int32)
    assert values.shape == token_ids.shape == (len(rows), k)
    expected = -np.sort(-rows.numpy(), axis=1)[:, :k]
    assert np.array_equal(values.numpy(), expected)
    assert np.array_equal(np.take_along_axis(rows.numpy(), token_ids.long().numpy(), 1), expected)
    assert all(len(set(row)) == k for row in token_ids.tolist())


@pytest.mark.parametrize("vocab", SIZES)
@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
@pytest.mark.parametrize("masked", [0.0, 0.5, 0.995])
def test_top_k_is_the_head_of_a_sort(vocab: int, ties: bool, masked: float) -> None:
    rows = made_rows(vocab, 5, ties=ties, masked=masked)
    for k in {1, 2, vocab // 33, vocab // 32, vocab // 8, vocab}:
        if 1 <= k <= vocab:
            assert_top_k(rows, k)


@given(st.integers(32, 400), st.integers(1, 12), st.integers(0, 99), st.floats(0, 1))
def test_top_k_of_any_size(vocab: int, k: int, seed: int, masked: float) -> None:
    assert_top_k(made_rows(vocab, seed, ties=True, masked=masked), k)


def test_top_k_finds_what_lies_beyond_the_last_whole_group() -> None:
    rows = torch.zeros(1, 71)
    rows[0, 64:] = torch.arange(1.0, 8.0)  # 71 is 8 groups of 8, and 7 more tokens
    values, token_ids = top_k(rows, 2)
    assert values.tolist() == [[7.0, 6.0]]
    assert token_ids.tolist() == [[70, 69]]


def test_top_k_of_equal_tokens() -> None:
    assert_top_k(torch.zeros(2, 640), 20)


@pytest.mark.parametrize("vocab", [4, 640])
def test_top_0_is_empty(vocab: int) -> None:
    values, token_ids = top_k(torch.zeros(2, vocab), 0)
    assert values.shape == token_ids.shape == (2, 0)


@pytest.mark.parametrize("vocab", [4, 640])
def test_a_row_without_any_token_breaks_no_other_row(vocab: int) -> None:
    # A model that broke says NaN.
    rows = made_rows(vocab, 6).index_fill(0, torch.tensor([1]), nan)
    values, token_ids = top_k(rows, 2)
    assert values.shape == token_ids.shape == (3, 2)
    expected = -np.sort(-rows[::2].numpy(), axis=1)[:, :2]
    assert np.array_equal(values[::2].numpy(), expected)
    assert ((token_ids >= 0) & (token_ids < vocab)).all()
