"""``fresh``: now and then, the tokens that came last are less likely."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from pydantic import Field

from logit_processors.control import Control, Phase, WindowedEntry
from logit_processors.pattern_sets import CompiledPattern
from logit_processors.patterns import Pattern
from logit_processors.randomness import uniform
from logit_processors.slot_lists import SlotLists
from logit_processors.table import EngineFacts, Rows, Table

LONGEST = 64
STREAM = 0xF2E5
"""Keeps these random numbers apart from those of other controls."""


class FreshEntry(WindowedEntry):
    """Now and then, make the tokens that came last less likely."""

    probability: float = Field(0.5, ge=0, le=1, description="Of acting at a position.")
    penalty: float = Field(ge=0, le=100, description="Nats that each of the tokens loses.")
    last: int = Field(16, ge=1, le=LONGEST, description="Generated tokens that are looked at.")


class Fresh(Control[FreshEntry]):
    """The field ``fresh``."""

    name, entry, phase, single, draws = "fresh", FreshEntry, Phase.SHAPE, True, True
    examples = ({"penalty": 2.0, "last": 4}, {"penalty": 5.0, "probability": 1.0})
    neutral = ({"penalty": 0.0},)

    def table(self, engine: EngineFacts) -> Table[FreshEntry]:
        """Return the table of the running requests."""
        return FreshTable(engine)


class FreshTable(Table[FreshEntry]):
    """One entry per slot, in columns ``[slots, width]`` on the device."""

    def __init__(self, engine: EngineFacts) -> None:
        numbers, bounds = (np.float32, (3,)), (np.int64, (2,))
        self._lists = SlotLists(engine.slots, engine.device, {"n": numbers, "when": bounds})
        self._seeds = engine.seeds
        self.used = self._lists.used

    def write(
        self, slot: int, entries: Sequence[FreshEntry], patterns: Mapping[Pattern, CompiledPattern]
    ) -> bool:
        """Keep the entry of a request that begins."""
        numbers = [(e.probability, e.penalty, e.last) for e in entries]
        columns = {"n": numbers, "when": [e.bounds for e in entries]}
        self._lists.write(slot, len(entries), columns)
        return True

    def flush(self) -> None:
        """Bring what was written to the device."""
        self._lists.flush()

    def apply(self, logits: torch.Tensor, rows: Rows) -> None:
        """Change ``[rows, vocab]`` float32 logits, in place."""
        probability, penalty, last = self._lists.column("n")[rows.slots, 0].unbind(1)
        start, stop = self._lists.column("when")[rows.slots, 0].unbind(1)
        acts = (start <= rows.positions) & (rows.positions < stop)
        acts &= uniform(self._seeds[rows.slots], rows.positions, STREAM) < probability
        apply_fresh(logits, rows.history.last(LONGEST), last, penalty * acts)


def apply_fresh(
    logits: torch.Tensor, tokens: torch.Tensor, last: torch.Tensor, penalty: torch.Tensor
) -> torch.Tensor:
    """Take nats from the logits of tokens that came last, once each, in place.

    Args:
        logits: ``[rows, vocab]`` float32.
        tokens: ``[rows, count]`` int64, newest first; -1 is none.
        last: ``[rows]``, how many of them count.
        penalty: ``[rows]`` nats.

    """
    counts = torch.arange(tokens.shape[1], device=tokens.device) < last.unsqueeze(1)
    taken = torch.where(counts & (tokens >= 0), penalty.unsqueeze(1), 0.0)
    # The largest of equal numbers: a token that came twice loses its nats once.
    lost = torch.zeros_like(logits).scatter_reduce_(1, tokens.clamp(min=0), taken, "amax")
    return logits.sub_(lost)
