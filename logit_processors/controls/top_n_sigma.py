"""``top_n_sigma``: only tokens whose logits are near the largest one are drawn.

The formula is that of Tang et al. 2024, "Top-n-sigma: Not All Logits Are You Need".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf

import torch
from pydantic import Field

from logit_processors.control import Control, Phase, WindowedEntry
from logit_processors.pattern_sets import CompiledPattern
from logit_processors.patterns import Pattern
from logit_processors.slot_lists import ListedTable
from logit_processors.table import EngineFacts, Rows, Table


class TopNSigmaEntry(WindowedEntry):
    """Draw only tokens whose logits are within n standard deviations of the largest one."""

    n: float = Field(gt=0, le=100, description="Standard deviations of the row's finite logits.")


class TopNSigma(Control[TopNSigmaEntry]):
    """The field ``top_n_sigma``."""

    name, entry, phase, order, single = "top_n_sigma", TopNSigmaEntry, Phase.SHAPE, 30, True
    examples = ({"n": 1.0}, {"n": 0.25})
    neutral = ({"n": 100.0},)

    def table(self, engine: EngineFacts) -> Table[TopNSigmaEntry]:
        """Return the table of n by slot."""
        return _TopNSigmaTable(engine)


class _TopNSigmaTable(ListedTable[TopNSigmaEntry]):
    def write(
        self,
        slot: int,
        entries: Sequence[TopNSigmaEntry],
        _patterns: Mapping[Pattern, CompiledPattern],
    ) -> bool:
        self._entries.put(slot, [(0, entry.n, entry.bounds) for entry in entries])
        return True

    def apply(self, logits: torch.Tensor, rows: Rows) -> None:
        if not rows.are_known:
            # To gather the rows that use it, the host would wait for the device.
            apply_top_n_sigma(logits, self._deviations(rows))
            return
        at, own = rows.of_slots(self.used)
        logits[at] = apply_top_n_sigma(logits[at], self._deviations(own))

    def _deviations(self, rows: Rows) -> torch.Tensor:
        """Return n of each row, ``[rows]``; infinity where no entry applies."""
        _, values, active = self._entries.at(rows.slots, rows.positions)
        return torch.where(active[:, 0], values[:, 0], inf)


def apply_top_n_sigma(logits: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    """Set logits more than n standard deviations below the largest one to -inf, in place.

    The deviation is that of the population of a row's finite logits: tokens that a grammar or a
    suppression has masked do not count.

    Args:
        logits: ``[rows, vocab]`` float32.
        n: ``[rows]`` float32, standard deviations; infinity leaves a row as it is.

    """
    finite = torch.isfinite(logits)
    count = finite.sum(dim=-1, keepdim=True).clamp(min=1)
    mean = torch.where(finite, logits, 0.0).sum(dim=-1, keepdim=True) / count
    squares = torch.where(finite, logits - mean, 0.0).square().sum(dim=-1, keepdim=True)
    n = n.unsqueeze(1)
    least = logits.amax(dim=-1, keepdim=True) - n * (squares / count).sqrt()
    # Infinity times a deviation of 0 is not a number.
    return logits.masked_fill_((logits < least) & n.isfinite(), -inf)
