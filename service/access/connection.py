"""A time limit for the head of a request.

uvicorn closes a connection that is idle between two requests, but waits forever for a head that
arrives a byte at a time or never.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.access.refusal import error_response
from service.errors import BadRequestError, HeadersTooLargeError, RequestError, SlowClientError
from service.settings import settings

MOST_HEAD = 64 << 10
"""Bytes of an incomplete head that are kept: more than a request may have."""


class TimedConnection(HttpToolsProtocol):
    """uvicorn's protocol, with a time by which the head of the next request must be whole."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._seconds = settings().receive_timeout_seconds
        self._waiting: asyncio.TimerHandle | None = None
        self._in_head = False
        self._head = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer for the first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Parse the data; refuse a head that is too large, as it is kept until it is whole."""
        super().data_received(data)
        if self._in_head:
            self._head += len(data)
            if self._head > MOST_HEAD:
                self._in_head = False
                self._end(HeadersTooLargeError(f"the head is over {MOST_HEAD} bytes", "headers"))

    def on_message_begin(self) -> None:
        """Count a head from its beginning."""
        self._in_head, self._head = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Stop the timer: the request has time limits of its own."""
        self._in_head = False
        self._wait_no_more()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Start the timer for the next request, unless it has arrived already."""
        is_here = bool(self.pipeline)
        super().on_response_complete()
        if not is_here:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._wait_no_more()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Refuse malformed HTTP with an error object; uvicorn's answer is plain text."""
        self._end(BadRequestError(msg, "headers"))

    def _wait(self) -> None:
        self._wait_no_more()
        self._waiting = self.loop.call_later(self._seconds, self._cut_off)

    def _wait_no_more(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _cut_off(self) -> None:
        self._end(SlowClientError(f"no whole head within {self._seconds:g} s", "headers"))

    def _end(self, error: RequestError) -> None:
        cycle: Any = self.cycle  # None before the first
        is_answering = cycle is not None and not cycle.response_complete
        if is_answering or self.transport.get_write_buffer_size():
            # A refusal cannot stand inside another answer, nor wait behind one that is not read.
            self.transport.abort()
            return
        response = error_response(error)
        head = [b": ".join(header) for header in response.raw_headers]
        status = STATUS_LINE[error.status].rstrip()
        self.transport.write(b"\r\n".join([status, *head, b"", bytes(response.body)]))
        self.transport.close()


def install() -> None:
    """Make it uvicorn's default HTTP protocol; an explicit ``--http`` still wins."""
    HTTP_PROTOCOLS["auto"] = f"{__name__}:{TimedConnection.__name__}"
