"""top-n-sigma, worked out by hand on four tokens."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest
import torch

from logit_processors.controls.top_n_sigma import apply_top_n_sigma
from tests.unit_support import INF


@pytest.mark.parametrize(
    ("row", "n", "left"),
    [
        # Mean 1, variance (1 + 1 + 1 + 9) / 4 = 3: the limits are 4 - 1.73 and 4 - 4.16.
        ([0.0, 0.0, 0.0, 4.0], 1.0, [3]),
        ([0.0, 0.0, 0.0, 4.0], 2.4, [0, 1, 2, 3]),
        # Of 0, 2 and 4 the variance is 8 / 3; a masked token takes no part.
        ([-INF, 0.0, 2.0, 4.0], 1.0, [3]),
        ([-INF, 0.0, 2.0, 4.0], 1.3, [2, 3]),
        ([5.0, 5.0, 5.0, 5.0], 0.1, [0, 1, 2, 3]),
        ([-INF, -INF, 7.0, -INF], 1.0, [2]),
        ([0.0, 0.0, 0.0, 4.0], inf, [0, 1, 2, 3]),
        ([-INF, -INF, -INF, -INF], 1.0, []),
    ],
)
def test_tokens_near_the_largest_are_left(row: list[float], n: float, left: list[int]) -> None:
    made = apply_top_n_sigma(torch.tensor([row]), torch.tensor([n]))[0]
    assert (made > -INF).nonzero().squeeze(1).tolist() == left
    assert made[left].tolist() == [row[token] for token in left]


def test_a_large_vocabulary_is_cut_as_numpy_cuts_it() -> None:
    rows = np.random.default_rng(0).normal(0, 3, (5, 5000)).astype(np.float32)
    rows[:, ::7] = -np.inf
    made = apply_top_n_sigma(torch.from_numpy(rows.copy()), torch.full((5,), 1.5)).numpy()
    for row, cut in zip(rows, made, strict=True):
        limit = row.max() - 1.5 * row[np.isfinite(row)].std()
        assert (np.isfinite(cut) == (row >= limit)).all()
