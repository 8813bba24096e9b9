"""A connection that does not say in time what is wanted of it is closed.

uvicorn closes what is idle between two requests; a head that comes a byte at a time, or never,
it would wait for without end.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.api.route import error_response
from service.errors import SlowClientError
from service.settings import settings


class TimedConnection(HttpToolsProtocol):
    """uvicorn's protocol, with a time by which the head of the next request must be whole."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._seconds = settings().receive_timeout_seconds
        self._waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def on_headers_complete(self) -> None:
        """Wait no longer: the rest is the request's own time."""
        self._wait_no_more()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request, unless it is here already."""
        is_here = bool(self.pipeline)
        super().on_response_complete()
        if not is_here:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._wait_no_more()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._wait_no_more()
        self._waiting = self.loop.call_later(self._seconds, self._cut_off)

    def _wait_no_more(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _cut_off(self) -> None:
        error = SlowClientError(f"no whole head within {self._seconds:g} s", "headers")
        response = error_response(error)
        head = [b": ".join(header) for header in response.raw_headers]
        status = STATUS_LINE[error.status].rstrip()
        self.transport.write(b"\r\n".join([status, *head, b"", bytes(response.body)]))
        self.transport.close()


def install() -> None:
    """Have uvicorn serve with it where nobody asked for another protocol."""
    HTTP_PROTOCOLS["auto"] = f"{__name__}:{TimedConnection.__name__}"
