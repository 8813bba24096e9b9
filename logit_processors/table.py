"""What a control keeps for the requests of an engine, and the rows that it is applied to."""

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
    """Facts about the engine that tables are made for."""

    slots: int
    """Places of running requests, and one that stays empty."""
    device: torch.device
    kernels: bool
    """Whether Triton's kernels run on the device."""
    directions: Directions
    """Token scores of the vectors that the worker holds."""
    texts: Texts
    """How text patterns are matched on the rows of this runner."""
    seeds: torch.Tensor = field(init=False)
    """``[slots]`` int64 on the device: what the random numbers of requests follow from."""

    def __post_init__(self) -> None:
        seeds = torch.zeros(self.slots, dtype=torch.int64, device=self.device)
        object.__setattr__(self, "seeds", seeds)


@dataclass(frozen=True)
class Rows:
    """The rows that controls are applied to, ``[rows]`` each.

    ``host_slots`` are the slots of the rows or, where only the device knows which row has which,
    those that some rows have, of any other length; ``slots`` int64 are the same on the device.
    ``positions`` are the tokens generated before the one being chosen.
    """

    host_slots: NDArray[np.int64]
    slots: torch.Tensor
    positions: torch.Tensor
    history: History

    @property
    def are_known(self) -> bool:
        """Say whether the host knows the slot of each row."""
        return len(self.host_slots) == len(self.slots)

    def of_slots(self, used: NDArray[np.bool_]) -> tuple[torch.Tensor, Rows]:
        """Return the rows of some slots: their places, ``[some]`` int64, and what they are.

        Args:
            used: ``[slots]``, the slots.

        """
        if self.are_known:
            found = np.flatnonzero(used[self.host_slots])
            at, host_slots = upload(found, self.slots.device), self.host_slots[found]
            history = self.history.select(at, found)
        else:
            # Only the device knows which rows they are: this waits for it.
            at = upload(used, self.slots.device, torch.bool)[self.slots].nonzero().squeeze(1)
            host_slots = self.slots[at].cpu().numpy()
            history = self.history.select(at, at.cpu().numpy())
        some = Rows(host_slots, self.slots[at], self.positions[at], history)
        return at, some


class Table(ABC, Generic[E]):
    """The entries of one control, by slot.

    ``used`` ``[slots]`` says on the host which slots have any: rows of others are left alone.
    """

    used: NDArray[np.bool_]
    reads_first: bool = False
    """True if :meth:`begin` is cheaper than a copy: such a table goes first in its phase."""

    @abstractmethod
    def write(
        self, slot: int, entries: Sequence[E], patterns: Mapping[Pattern, CompiledPattern]
    ) -> bool:
        """Give a slot its entries over those that it had; returns False if a need is not here.

        Args:
            slot: of a request.
            entries: of this control; none to clear the slot.
            patterns: the request's text patterns, compiled.

        """

    def flush(self) -> None:
        """Bring what was written to the device, once before a step."""

    @abstractmethod
    def apply(self, logits: torch.Tensor, rows: Rows) -> None:
        """Do to ``[rows, vocab]`` float32 logits what the entries ask, in place."""

    def begin(self, logits: torch.Tensor, out: torch.Tensor, rows: Rows) -> None:
        """Write to ``out`` what the entries make of the logits, which stay as they are.

        Args:
            logits: ``[rows, vocab]`` of any float dtype.
            out: ``[rows, vocab]`` float32.
            rows: what they are of.

        """
        out.copy_(logits)
        self.apply(out, rows)

    def warm_up(self, vocab: int, dtype: torch.dtype) -> None:
        """Compile the kernels for ``vocab`` logits of a dtype."""

    def held(self) -> int:
        """Return how many places of vectors the slots hold."""
        return 0
