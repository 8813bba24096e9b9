"""A running request that steers or captures the residual stream."""

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

    It holds its vectors, the rows ``held``, all that time, preempted or not. ``steering`` are the
    entries with an effect. Entries of one vector and window are summed to one, so that opposite
    strengths cancel exactly. ``broken``: a vector is not on this worker or lacks a named layer, so
    that the request must end with an error. ``slot`` is its index in the device's tables, while it
    has one.
    """

    wanted: StreamRequest
    prompt_len: int
    steering: tuple[Entry, ...] = ()
    held: tuple[int, ...] = ()
    broken: bool = False
    slot: int | None = None
    captured: set[int] = field(default_factory=set)

    @classmethod
    def start(
        cls, wanted: StreamRequest, prompt_len: int, bank: Bank, layers: list[int]
    ) -> Followed:
        """Track a request and hold its vectors.

        Args:
            wanted: the request's steering and capture.
            prompt_len: number of tokens of its prompt.
            bank: the bank with the vectors.
            layers: this rank's layers, in the order of the bank's.

        """
        held: list[int] = []
        sums: dict[tuple[int, int, int], NDArray[np.float64]] = {}
        broken = False
        for steer in wanted.steer:
            row = bank.acquire(steer.vector)
            if row is None:
                broken = True
                continue
            held.append(row)
            carried = bank.carried(row)
            named = carried if steer.layers is None else frozenset(steer.layers)
            broken |= not named <= carried
            strengths = np.array([steer.strength * (number in named) for number in layers])
            key = (row, *steer.bounds)
            sums[key] = sums.get(key, 0.0) + strengths
        steering = [
            Entry(row, strengths.astype(np.float32), start, stop)
            for (row, start, stop), strengths in sums.items()
            if strengths.any()
        ]
        return cls(wanted, prompt_len, () if broken else tuple(steering), tuple(held), broken)

    def release(self, bank: Bank) -> None:
        """Release the vectors."""
        for row in self.held:
            bank.release(row)


@dataclass(frozen=True)
class Row:
    """A request's tokens in one step: ``[start, stop)`` of the step's tokens.

    ``first`` is the first token's index in the request, from 0.
    """

    request: Followed
    start: int
    stop: int
    first: int

    @property
    def position(self) -> int:
        """The generated position of the first token."""
        return self.first + 1 - self.request.prompt_len
