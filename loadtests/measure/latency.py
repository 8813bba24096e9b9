"""The latencies of a stream's tokens, from the times of its events alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

_END = b"\n\n"
_CLOSING = 2
"""Events after the last token: the usage and [DONE]."""


class Arrivals:
    """The time of each server-sent event, one look at the clock for what came together.

    Nothing is parsed: an event ends with an empty line, and neither JSON nor base64 holds one.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._times: list[float] = []
        self._after_newline = False

    def see(self, chunk: bytes) -> None:
        """Take note of the events that end in a piece of a stream."""
        ends = chunk.count(_END) + (self._after_newline and chunk.startswith(b"\n"))
        if ends:
            self._times += [self._clock()] * ends
        self._after_newline = chunk.endswith(b"\n")

    @property
    def of_tokens(self) -> list[float]:
        """When the tokens came: a chat's first event names the role, its last two close it."""
        return self._times[1:-_CLOSING]


def gaps(arrivals: Sequence[float]) -> list[float]:
    """Return the times between neighbouring tokens, in the unit of the arrivals."""
    return [after - before for before, after in pairwise(arrivals)]


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Return the value that so many percent of the values do not exceed; None of no values."""
    return float(np.percentile(values, percent)) if len(values) else None
