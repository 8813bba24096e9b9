"""The table of a control: its entries by request, and the rows that it is applied to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from logit_processors.control import Entry
from logit_processors.upload import upload

if TYPE_CHECKING:
    from logit_processors.directions import Directions
    from logit_processors.history import History
    from logit_processors.pattern_sets import CompiledPattern
    from logit_processors.patterns import Pattern
    from logit_processors.texts import Texts

E = TypeVar("E", bound=Entry)


@dataclass(frozen=True)
class EngineFacts:
    """Facts about the engine for tables."""

    slots: int
    """Number of slots of running requests, and one empty slot."""
    device: torch.device
    kernels: bool
    """True if Triton's kernels run on the device."""
    directions: Directions
    """Token scores of the vectors that the worker holds."""
    texts: Texts
    """Matches text patterns on the rows of this runner."""
    seeds: torch.Tensor = field(init=False)
    """``[slots]`` int64 on the device: the seeds of requests' random numbers."""

    def __post_init__(self) -> None:
        seeds = torch.zeros(self.slots, dtype=torch.int64, device=self.device)
        object.__setattr__(self, "seeds", seeds)


@dataclass(frozen=True)
class Rows:
    """The rows that controls are applied to, ``[rows]`` each.

    ``slots`` int64 are the slots of the rows on the device. ``host_slots`` are the same on the
    host; if only the device has the slot of each row, they are the slots in use, of another
    length. ``positions`` are the numbers of tokens generated before the one being chosen.
    """

    host_slots: NDArray[np.int64]
    slots: torch.Tensor
    positions: torch.Tensor
    history: History

    @property
    def are_known(self) -> bool:
        """Say whether the slot of each row is known on the host."""
        return len(self.host_slots) == len(self.slots)

    def of_slots(self, used: NDArray[np.bool_]) -> tuple[torch.Tensor, Rows]:
        """Return the rows of some slots: their indices, ``[some]`` int64, and their ``Rows``.

        Args:
            used: ``[slots]``, the slots.

        """
        if self.are_known:
            found = np.flatnonzero(used[self.host_slots])
            at, host_slots = upload(found, self.slots.device), self.host_slots[found]
            history = self.history.select(at, found)
        else:
            # The indices are on the device, so that this waits for it.
            at = upload(used, self.slots.device, torch.bool)[self.slots].nonzero().squeeze(1)
            host_slots = self.slots[at].cpu().numpy()
            history = self.history.select(at, at.cpu().numpy())
        some = Rows(host_slots, self.slots[at], self.positions[at], history)
        return at, some


class Table(ABC, Generic[E]):
    """The entries of one control, by slot.

    ``used`` ``[slots]``, on the host, marks the slots with entries; other rows are not changed.
    """

    used: NDArray[np.bool_]
    reads_first: bool = False
    """True if :meth:`begin` is cheaper than a copy; then the table goes first in its phase."""

    @abstractmethod
    def write(
        self, slot: int, entries: Sequence[E], patterns: Mapping[Pattern, CompiledPattern]
    ) -> bool:
        """Replace a slot's entries; return False if a vector or pattern is missing.

        Args:
            slot: a request's slot.
            entries: this control's entries; empty to clear the slot.
            patterns: the request's text patterns, compiled.

        """

    def flush(self) -> None:
        """Copy changes to the device, once before a step."""

    @abstractmethod
    def apply(self, logits: torch.Tensor, rows: Rows) -> None:
        """Apply the entries to ``[rows, vocab]`` float32 logits, in place."""

    def begin(self, logits: torch.Tensor, out: torch.Tensor, rows: Rows) -> None:
        """Apply the entries to a copy of the logits in ``out``.

        Args:
            logits: ``[rows, vocab]`` of any float dtype.
            out: ``[rows, vocab]`` float32.
            rows: the rows of the logits.

        """
        out.copy_(logits)
        self.apply(out, rows)

    def warm_up(self, vocab: int, dtype: torch.dtype) -> None:
        """Compile the kernels for ``vocab`` logits of a dtype."""

    def held(self) -> int:
        """Return the number of vectors that the slots hold."""
        return 0
