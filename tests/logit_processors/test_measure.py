"""Log-probabilities against numpy in float64, and the head of a sort."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from logit_processors import measure

Array = NDArray[np.float64]
SIZES = (1, 7, 8, 33, 64, 257, 1003)


def reference(logits: torch.Tensor) -> Array:
    """Log-probabilities in float64."""
    values = logits.numpy().astype(np.float64)
    shifted = values - values.max(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def made_rows(vocab: int, seed: int, *, ties: bool = False, masked: float = 0.0) -> torch.Tensor:
    """Random logits; ``ties`` of few values, a share of ``masked`` tokens (never all)."""
    random = np.random.default_rng(seed)
    values = random.normal(0, 5, (3, vocab))
    if ties:
        values = np.round(values / 4)
    hidden = random.random((3, vocab)) < masked
    hidden[:, seed % vocab] = False
    values[hidden] = -np.inf
    return torch.from_numpy(values.astype(np.float32))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_any_float_becomes_float32(dtype: torch.dtype) -> None:
    logits = made_rows(100, 3).to(dtype)
    logprobs = measure.log_softmax(logits)
    assert logprobs.dtype == torch.float32
    np.testing.assert_allclose(logprobs, reference(logits.float()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("vocab", SIZES)
def test_top_k_is_the_head_of_a_sort(vocab: int) -> None:
    rows = measure.log_softmax(made_rows(vocab, 5, masked=0.5))
    for k in {0, 1, vocab // 2, vocab}:
        values, token_ids = measure.top_k(rows, k)
        assert (values.dtype, token_ids.dtype) == (torch.float32, torch.int32)
        assert np.array_equal(values.numpy(), -np.sort(-rows.numpy(), axis=1)[:, :k])
        assert torch.equal(rows.gather(1, token_ids.long()), values)
