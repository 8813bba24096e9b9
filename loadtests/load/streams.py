"""When the tokens of a streamed answer came, as server-sent events or in Arrow batches."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable
from typing import Protocol

import pyarrow as pa

from loadtests.measure.client import RequestError
from loadtests.measure.latency import Arrivals

Clock = Callable[[], float]
_TAIL = 64


class Stream(Protocol):
    """An answer that is being read."""

    def see(self, chunk: bytes) -> None:
        """Take the next piece of it."""

    def tokens(self) -> list[float]:
        """Return when each token came, in seconds; RequestError if it ended early."""


class Events:
    """Server-sent events, of which only the last must be known."""

    def __init__(self, clock: Clock = time.perf_counter) -> None:
        self._arrivals = Arrivals(clock)
        self._tail = b""

    def see(self, chunk: bytes) -> None:
        """Take the next piece."""
        self._arrivals.see(chunk)
        self._tail = (self._tail + chunk[-_TAIL:])[-_TAIL:]

    def tokens(self) -> list[float]:
        """Return when each event with a token came."""
        if b"[DONE]" not in self._tail:
            raise RequestError("a stream ended before [DONE]")
        return self._arrivals.of_tokens


class Batches:
    """An Arrow stream: a batch has come when its last byte has."""

    def __init__(self, clock: Clock = time.perf_counter) -> None:
        self._clock = clock
        self._content = bytearray()
        self._ends: list[int] = []
        self._times: list[float] = []

    def see(self, chunk: bytes) -> None:
        """Take the next piece."""
        self._content += chunk
        self._ends.append(len(self._content))
        self._times.append(self._clock())

    def tokens(self) -> list[float]:
        """Return when each row came."""
        source, found = pa.BufferReader(bytes(self._content)), []
        try:
            with pa.ipc.open_stream(source) as reader:
                for batch in reader:
                    came = self._times[bisect_left(self._ends, source.tell())]
                    found += [came] * batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise RequestError(f"an Arrow stream is broken: {error}") from error
        return found
