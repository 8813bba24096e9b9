"""A plugin that fails ends its own rows, and no others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from logit_processors.controls.bias import TokenBias
from logit_processors.foreign import ForeignTable
from logit_processors.table import Rows, Table
from tests.unit_support import rows_of


class Plugin(Table[Any]):
    """Raises logit 1 of its rows; fails in the way that it is given."""

    def __init__(self, fault: str) -> None:
        self.used = np.array([True, False])
        self._fault = fault

    def write(self, slot: int, entries: Sequence[Any], patterns: Mapping[Any, Any]) -> bool:
        return True

    def flush(self) -> None:
        if self._fault == "flush":
            raise RuntimeError("no device")

    def apply(self, logits: torch.Tensor, rows: Rows) -> None:
        logits[:, 1] += 1
        if self._fault == "apply":
            raise RuntimeError("no reason")


@pytest.mark.parametrize("fault", ["flush", "apply", ""])
def test_a_fault_leaves_its_rows_as_they_were(fault: str) -> None:
    table = ForeignTable(TokenBias(), Plugin(fault))
    table.flush()
    logits = torch.zeros(2, 3)
    table.apply(logits, rows_of([0, 1], [0, 0]))
    assert table.failed is not None
    assert table.failed.tolist() == [bool(fault), False]
    assert logits.tolist() == [[0.0, 0.0 if fault else 1.0, 0.0], [0.0] * 3]
