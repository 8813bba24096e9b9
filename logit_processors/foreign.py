"""Guards around plugins' controls, which protect the rows of other requests."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from logit_processors.control import Control
from logit_processors.pattern_sets import CompiledPattern
from logit_processors.patterns import Pattern
from logit_processors.table import Rows, Table

logger = logging.getLogger(__name__)


class ForeignTable(Table[Any]):
    """A plugin's table: it gets the rows of its own requests only; its exceptions end these.

    ``failed`` ``[rows]`` bool marks the rows on which the last application failed; None if none
    did.
    """

    def __init__(self, control: Control[Any], table: Table[Any]) -> None:
        self.failed: torch.Tensor | None = None
        self._is_stale = False
        self._name = control.name
        self._table = table
        self.used = table.used

    def write(
        self, slot: int, entries: Sequence[Any], patterns: Mapping[Pattern, CompiledPattern]
    ) -> bool:
        """Give a slot its entries; return False if the plugin cannot."""
        try:
            return self._table.write(slot, entries, patterns)
        except Exception:
            logger.exception("the control %r failed to take a request", self._name)
            return False

    def flush(self) -> None:
        """Copy changes to the device."""
        try:
            self._table.flush()
        except Exception:
            logger.exception("the control %r failed to bring its tables to the device", self._name)
            # From now on its tables on the device are unknown: no row may rely on them.
            self._is_stale = True

    def apply(self, logits: torch.Tensor, rows: Rows) -> None:
        """Apply the entries to copies of their rows, and keep the copies without NaN."""
        at, own = rows.of_slots(self.used)
        self.failed = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
        if self._is_stale:
            self.failed[at] = True
            return
        try:
            changed = logits[at]
            self._table.apply(changed, own)
        except Exception:
            logger.exception("the control %r failed", self._name)
            self.failed[at] = True
            return
        wrong = (torch.isnan(changed) | torch.isposinf(changed)).any(dim=-1)
        self.failed[at] = wrong
        logits[at] = torch.where(wrong.unsqueeze(1), logits[at], changed)

    def warm_up(self, vocab: int, dtype: torch.dtype) -> None:
        """Compile the plugin's kernels; if that fails, its first request shows it."""
        try:
            self._table.warm_up(vocab, dtype)
        except Exception:
            logger.exception("the control %r failed to compile its kernels", self._name)

    def held(self) -> int:
        """Return the number of vectors that the slots hold."""
        return self._table.held()
