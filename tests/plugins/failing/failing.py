"""A control that fails in the way that its entry names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from logit_processors.control import Control, Entry, Phase
from logit_processors.table import EngineFacts, Rows, Table


class FailingEntry(Entry):
    """Fail, if ``how`` names a way."""

    how: str


class Failing(Control[FailingEntry]):
    """The field ``failing``."""

    name, entry, phase, single = "failing", FailingEntry, Phase.ADD, True
    examples = ({"how": "apply raises"},)

    def table(self, engine: EngineFacts) -> Table[FailingEntry]:
        """Return a table that fails."""
        return FailingTable(engine.slots)


class FailingTable(Table[FailingEntry]):
    """Keeps how each slot is to fail."""

    def __init__(self, slots: int) -> None:
        self.used = np.zeros(slots, bool)
        self._how: dict[int, str] = {}

    def write(
        self, slot: int, entries: Sequence[FailingEntry], patterns: Mapping[Any, Any]
    ) -> bool:
        """Keep an entry, or fail to."""
        self.used[slot] = bool(entries)
        for entry in entries:
            self._how[slot] = entry.how
            if entry.how == "write raises":
                raise RuntimeError("asked to fail in write")
        return True

    def apply(self, logits: torch.Tensor, rows: Rows) -> None:
        """Fail as asked."""
        ways = [self._how[slot] for slot in rows.slots.tolist()]
        if "apply raises" in ways:
            logits.fill_(100.0)
            raise RuntimeError("asked to fail in apply")
        for row, how in enumerate(ways):
            if how == "not a number":
                logits[row, 5] = torch.nan
