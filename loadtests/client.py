"""The client: many streams at once, drained as bytes and never parsed whole."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

_USAGE = re.compile(rb'"completion_tokens": ?(\d+)')
_TAIL = 4096
"""Bytes at the end of a stream in which its usage is found."""
_BUFFER = 1 << 20
_TIMEOUT_SECONDS = 600


class RequestError(Exception):
    """An answer that is not what a benchmark needs."""


FAILURES = (RequestError, aiohttp.ClientError, TimeoutError)
"""What a request ends with when it goes wrong."""


@dataclass(frozen=True)
class Request:
    """A streaming request; ``marker`` is what its answer must contain to be what was asked."""

    payload: dict[str, Any]
    marker: bytes = b""
    path: str = "/v1/chat/completions"

    @property
    def tokens(self) -> int:
        """How many tokens it generates."""
        tokens: int = self.payload["max_tokens"]
        return tokens

    def with_tokens(self, tokens: int) -> Request:
        """Return the same request for another number of tokens."""
        return Request(self.payload | {"max_tokens": tokens}, self.marker, self.path)


@dataclass(frozen=True)
class Run:
    """What a batch of requests took."""

    tokens: int
    seconds: float
    received_bytes: int
    client_seconds: float
    """Processor time of this process: near ``seconds``, the client would be the bottleneck."""

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds


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
        sizes = await asyncio.gather(
            *(self._drain(url, *pair) for pair in zip(requests, bodies, strict=True))
        )
        seconds, client_seconds = time.perf_counter() - started, time.process_time() - used
        tokens = sum(request.tokens for request in requests)
        return Run(tokens, seconds, sum(sizes), client_seconds)

    async def _drain(self, url: str, request: Request, body: bytes) -> int:
        """Read an answer to its end; return its size."""
        size, tail, found = 0, b"", not request.marker
        async with self.post(url, request, body) as answer:
            async for chunk in answer.content.iter_any():
                size += len(chunk)
                found = found or request.marker in chunk
                tail = chunk[-_TAIL:] if len(chunk) >= _TAIL else (tail + chunk)[-_TAIL:]
        counts = _USAGE.findall(tail)
        if b"[DONE]" not in tail or not counts or int(counts[-1]) != request.tokens:
            raise RequestError(f"a stream ended early: {tail[-500:].decode(errors='replace')}")
        if not found:
            raise RequestError(f"an answer holds no {request.marker.decode()}")
        return size

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
