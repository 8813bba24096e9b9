"""Streamed answers to readers that may be slow, or gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import ExitStack, aclosing, closing
from typing import Any
from weakref import finalize

import orjson
from fastapi.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send
from vllm.entrypoints.serve.engine.protocol import ErrorInfo

from service.access.visit import Visit
from service.metrics import SLOW_READERS

EVENTS = "text/event-stream"
"""The media type of server-sent events."""
_EVENT = "data: "
_ERROR = _EVENT + '{"error":'
_PIECE = 64 << 10
"""Bytes sent at once, so that a reader's speed is seen within one large chunk."""
_LOOKS = 8
"""How often a reader is looked at before it is cut off."""
_log = logging.getLogger("vllm.sensefield")


def sse_event(body: Mapping[str, Any]) -> bytes:
    """Return a server-sent event."""
    return _EVENT.encode() + orjson.dumps(body) + b"\n\n"


def error_in(event: bytes | memoryview | str) -> ErrorInfo | None:
    """Return the error that one of vLLM's server-sent events tells, if it tells one."""
    if not isinstance(event, str) or not event.startswith(_ERROR):
        return None
    return ErrorInfo.model_validate(orjson.loads(event[len(_EVENT) :])["error"])


class TimedStream(StreamingResponse):
    """Ends a stream whose reader takes no more than a piece of 64 KiB in ``seconds``.

    However a stream ends, the generator it is made of is closed, and with it the request.
    """

    def __init__(
        self,
        content: AsyncGenerator[bytes | memoryview | str, None],
        seconds: float,
        media_type: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(content, media_type=media_type, headers=headers)
        self._content = content
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request of a scope."""
        self._visit = Visit.of(scope)
        self._visit.is_timed = True
        await super().__call__(scope, receive, send)

    async def stream_response(self, send: Send) -> None:
        """Send the head and the pieces; give up on a reader that takes none."""
        async with aclosing(self._content):
            await within(self._seconds, send, self._send_all)

    async def _send_all(self, send: Send) -> None:
        # The head goes with what follows it: until then a router may ask another server.
        first = await anext(self._content, b"")
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        await self._send_pieces(send, first)
        async for chunk in self._content:
            await self._send_pieces(send, chunk)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_pieces(self, send: Send, chunk: bytes | memoryview | str) -> None:
        self._visit.is_between_parts = False
        await send_pieces(send, chunk.encode() if isinstance(chunk, str) else chunk)
        self._visit.is_between_parts = True


class TimedAnswer(Response):
    """An answer that is whole, sent as a stream would be: its reader has its time for each piece.

    Args:
        content: the body.
        seconds: that a reader may take for a piece of 64 KiB.
        ending: what the request holds until its answer has been sent.
        left: is told, before that, of a reader that was cut off.
        headers: beside its type and length.
        media_type: its type.

    """

    def __init__(
        self,
        content: bytes,
        seconds: float,
        ending: ExitStack | None = None,
        left: Callable[[], None] = lambda: None,
        headers: Mapping[str, str] | None = None,
        media_type: str = "application/json",
    ) -> None:
        super().__init__(content, headers=headers, media_type=media_type)
        self._seconds = seconds
        self._ending = ending or ExitStack()
        self._left = left
        # Nobody sends an answer whose client has left meanwhile.
        finalize(self, self._ending.close).atexit = False

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer the request of a scope."""
        Visit.of(scope).is_timed = True
        with self._ending:
            if not await within(self._seconds, send, self._send_all):
                self._left()

    async def _send_all(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        await send_pieces(send, self.body)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def send_pieces(send: Send, data: bytes | memoryview) -> None:
    """Send bytes of a body, of which more follows."""
    view = memoryview(data)
    for at in range(0, len(view), _PIECE):
        piece = {"type": "http.response.body", "body": view[at : at + _PIECE]}
        await send({**piece, "more_body": True})


async def within(seconds: float, send: Send, send_all: Callable[[Send], Awaitable[None]]) -> bool:
    """Send an answer; say whether its reader has taken it.

    It is broken off once the reader has taken ``seconds`` for one message.
    """
    try:
        async with asyncio.timeout(None) as limit:
            with closing(_TimedSend(send, seconds, limit)) as timed:
                await send_all(timed.send)
    except TimeoutError:
        if not limit.expired():
            raise
        SLOW_READERS.inc()
        _log.warning("cut off a reader that took nothing for %g s", seconds)
        return False
    return True


class _TimedSend:
    """Has a limit expire once one message has taken ``seconds``.

    A stream has thousands of messages, of which hardly one waits: they share a timer, which
    looks some times in those seconds whether the same message is still under way. Looks are
    counted, not seconds, so that a loop that stands still blames no reader for it.
    """

    def __init__(self, send: Send, seconds: float, limit: asyncio.Timeout) -> None:
        self._send = send
        self._between = seconds / _LOOKS
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._message: Message | None = None
        self._seen: Message | None = None
        self._looks = 0
        self._timer = self._loop.call_later(self._between, self._look)

    async def send(self, message: Message) -> None:
        """Send a message."""
        self._message = message
        await self._send(message)
        self._message = None

    def _look(self) -> None:
        same = self._message is not None and self._message is self._seen
        self._looks = self._looks + 1 if same else 0
        self._seen = self._message
        if self._looks == _LOOKS:
            self._limit.reschedule(self._loop.time())
        else:
            self._timer = self._loop.call_later(self._between, self._look)

    def close(self) -> None:
        """Stop looking."""
        self._timer.cancel()
