"""The client: many streams at once, drained as bytes and never parsed whole."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from loadtests.measure.latency import Arrivals, gaps, percentile

_USAGE = re.compile(rb'"completion_tokens": ?(\d+)')
_TAIL = 4096
"""Bytes at the end of a stream in which its usage is found."""
_BUFFER = 1 << 20
_TIMEOUT_SECONDS = 600


class RequestError(Exception):
    """An answer that is not what a benchmark needs."""


FAILURES = (RequestError, aiohttp.ClientError, TimeoutError)
"""The exceptions of a failed request."""


@dataclass(frozen=True)
class Request:
    """A streaming request; ``marker`` is what its answer must contain to be what was asked."""

    payload: dict[str, Any]
    marker: bytes = b""
    path: str = "/v1/chat/completions"

    @property
    def tokens(self) -> int:
        """The number of tokens to generate."""
        tokens: int = self.payload["max_tokens"]
        return tokens

    def with_tokens(self, tokens: int) -> Request:
        """Return the same request for another number of tokens."""
        return Request(self.payload | {"max_tokens": tokens}, self.marker, self.path)


@dataclass(frozen=True)
class Run:
    """The measurements of a batch of requests."""

    tokens: int
    seconds: float
    received_bytes: int
    client_seconds: float
    """Processor time of this process: near ``seconds``, the client would be the bottleneck."""
    ttfts: Sequence[float] = ()
    """Seconds from sending to the first token, of each request."""
    itls: Sequence[float] = ()
    """Seconds between neighbouring tokens, of all requests."""
    resident_bytes: Mapping[str, int] = field(default_factory=dict)
    """Memory of the server's processes after it, by what they are."""
    processor_seconds: Mapping[str, float] = field(default_factory=dict)
    """Processor time that they used for it."""

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds

    def describe(self) -> dict[str, Any]:
        """Return what was measured, for JSON: of the many times, their percentiles."""
        return {
            "tokens_per_second": self.rate,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "client_seconds": self.client_seconds,
            "received_bytes": self.received_bytes,
            "bytes_per_token": self.received_bytes / self.tokens,
            "ttft_p50_seconds": percentile(self.ttfts, 50),
            "ttft_p99_seconds": percentile(self.ttfts, 99),
            "itl_p50_seconds": percentile(self.itls, 50),
            "itl_p99_seconds": percentile(self.itls, 99),
            "resident_bytes": dict(self.resident_bytes),
            "processor_seconds": dict(self.processor_seconds),
        }


class Client:
    """Sends requests over HTTP."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def run(self, url: str, requests: Sequence[Request]) -> Run:
        """Send all requests at once and wait for the last to end.

        Raises:
            RequestError: an answer was not what was asked for; or any other of FAILURES.

        """
        bodies = [json.dumps(request.payload).encode() for request in requests]
        started, used = time.perf_counter(), time.process_time()
        streams = await asyncio.gather(
            *(self._drain(url, *pair) for pair in zip(requests, bodies, strict=True))
        )
        seconds, client_seconds = time.perf_counter() - started, time.process_time() - used
        return Run(
            tokens=sum(request.tokens for request in requests),
            seconds=seconds,
            received_bytes=sum(size for size, _ in streams),
            client_seconds=client_seconds,
            ttfts=[times[0] - started for _, times in streams if times],
            itls=[gap for _, times in streams for gap in gaps(times)],
        )

    async def _drain(self, url: str, request: Request, body: bytes) -> tuple[int, list[float]]:
        """Read an answer to its end; return its size and when its tokens came."""
        size, tail, found, arrivals = 0, b"", not request.marker, Arrivals()
        async with self.post(url, request, body) as answer:
            async for chunk in answer.content.iter_any():
                arrivals.see(chunk)
                size += len(chunk)
                found = found or request.marker in chunk
                tail = chunk[-_TAIL:] if len(chunk) >= _TAIL else (tail + chunk)[-_TAIL:]
        counts = _USAGE.findall(tail)
        if b"[DONE]" not in tail or not counts or int(counts[-1]) != request.tokens:
            raise RequestError(f"a stream ended early: {tail[-500:].decode(errors='replace')}")
        if not found:
            raise RequestError(f"an answer holds no {request.marker.decode()}")
        return size, arrivals.of_tokens

    @asynccontextmanager
    async def post(
        self, url: str, request: Request, body: bytes
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send one request; RequestError if it is refused."""
        headers = {"content-type": "application/json"}
        async with self.session.post(url + request.path, data=body, headers=headers) as answer:
            if not answer.ok:
                raise RequestError(f"HTTP {answer.status}: {(await answer.text())[:500]}")
            yield answer


@asynccontextmanager
async def connected() -> AsyncIterator[Client]:
    """Yield a client."""
    # A kept connection may be closed by the server just as it is used again.
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, read_bufsize=_BUFFER
    ) as session:
        yield Client(session)
