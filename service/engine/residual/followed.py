"""One running request as the residual stream knows it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from logit_processors.residual import StreamRequest
from service.engine.residual.bank import Bank


@dataclass(frozen=True, eq=False)
class Entry:
    """A vector to add: ``strengths`` ``[own layers]`` float32 at positions [start, stop)."""

    row: int
    strengths: NDArray[np.float32]
    start: int
    stop: int

    def covers(self, position: int) -> bool:
        """Say whether the entry applies at a generated position."""
        return self.start <= position < self.stop


@dataclass(eq=False)
class Followed:
    """A request that steers or captures, from its first step to its end.

    It holds its vectors for all that time, preempted or not. ``broken``: a vector is not
    on this worker or does not carry a layer that was named, so the request must end with an
    error. ``slot`` is its place in the device's tables, while it has one.
    """

    wanted: StreamRequest
    prompt_len: int
    entries: tuple[Entry, ...] = ()
    broken: bool = False
    slot: int | None = None
    captured: set[int] = field(default_factory=set)

    @classmethod
    def start(
        cls, wanted: StreamRequest, prompt_len: int, bank: Bank, layers: list[int]
    ) -> Followed:
        """Take hold of a request's vectors.

        Args:
            wanted: what the request asks.
            prompt_len: its prompt's tokens.
            bank: where the vectors are.
            layers: this rank's layers, in the order of the bank's.

        """
        entries: list[Entry] = []
        broken = False
        for steer in wanted.steer:
            row = bank.acquire(steer.vector)
            if row is None:
                broken = True
                continue
            carried = bank.carried(row)
            named = carried if steer.layers is None else frozenset(steer.layers)
            broken |= not named <= carried
            strengths = np.array([steer.strength * (n in named) for n in layers], np.float32)
            entries.append(Entry(row, strengths, *steer.when.bounds))
        return cls(wanted, prompt_len, tuple(entries), broken)

    def release(self, bank: Bank) -> None:
        """Let go of the vectors."""
        for entry in self.entries:
            bank.release(entry.row)

    @property
    def steering(self) -> tuple[Entry, ...]:
        """The entries that change anything."""
        return () if self.broken else tuple(e for e in self.entries if e.strengths.any())


@dataclass(frozen=True)
class Row:
    """A request's tokens in one step: ``[start, stop)`` of the step's tokens.

    ``first`` is the first one's place in the request, from 0.
    """

    request: Followed
    start: int
    stop: int
    first: int

    @property
    def position(self) -> int:
        """The generated position of the first token."""
        return self.first + 1 - self.request.prompt_len
