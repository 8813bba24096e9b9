"""Rows that have no token left."""

from __future__ import annotations

import pytest
import torch

from logit_processors.exhausted import exhausted
from tests.unit_support import INF


def test_only_a_row_with_no_token_left_is_exhausted() -> None:
    logits = torch.tensor([[-INF, -INF], [-INF, -1e30], [0.0, 1.0]])
    assert exhausted(logits).tolist() == [True, False, False]


@pytest.mark.parametrize("left", [0, 1023, 1024, 2999])
def test_one_token_is_enough_wherever_it_stands(left: int) -> None:
    logits = torch.full((3, 3000), -INF)
    logits[1, left] = -5.0
    logits[2] = 1.0
    assert exhausted(logits).tolist() == [True, False, False]
