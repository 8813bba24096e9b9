"""Streamed answers to clients that may read slowly, or disconnect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import ExitStack, aclosing
from weakref import finalize

import orjson
from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from service.access.visit import Visit
from service.engine.vllm_http import ErrorInfo

_EVENT = "data: "
_ERROR = _EVENT + '{"error":'
_PIECE = 64 << 10
"""Bytes per message: the door limits the time to read each message."""


def error_in(event: bytes | memoryview | str) -> ErrorInfo | None:
    """Return the error in one of vLLM's server-sent events, None if it holds none."""
    if not isinstance(event, str) or not event.startswith(_ERROR):
        return None
    return ErrorInfo.model_validate(orjson.loads(event[len(_EVENT) :])["error"])


class PiecedStream(StreamingResponse):
    """A stream whose chunks are sent in pieces of 64 KiB; its head goes with the first.

    The generator is always closed at the end, and with it the request.
    """

    def __init__(
        self, content: AsyncGenerator[bytes | memoryview | str, None], media_type: str
    ) -> None:
        super().__init__(content, media_type=media_type)
        self._content = content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        self._visit = Visit.of(scope)
        try:
            await super().__call__(scope, receive, send)
        except asyncio.CancelledError:
            if self.background is not None:  # vLLM's count of running requests
                await self.background()
            raise

    async def stream_response(self, send: Send) -> None:
        """Send the head and the pieces."""
        async with aclosing(self._content):
            # Wait for the first chunk: until the head is sent, a router may retry elsewhere.
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


class PiecedAnswer(Response):
    """A whole answer, sent in pieces like a stream.

    Args:
        content: the body, or its pieces.
        ending: the request's resources, released once the answer has been sent.
        left: called before that if the client did not read the answer.
        headers: headers beside the content's type and length.
        media_type: the content's type.

    """

    def __init__(
        self,
        content: bytes | Sequence[bytes],
        ending: ExitStack | None = None,
        left: Callable[[], None] = lambda: None,
        headers: Mapping[str, str] | None = None,
        media_type: str = "application/json",
    ) -> None:
        self._pieces = [content] if isinstance(content, bytes) else content
        size = {"content-length": str(sum(map(len, self._pieces)))}
        super().__init__(headers={**(headers or {}), **size}, media_type=media_type)
        self._ending = ending or ExitStack()
        self._left = left
        # The answer is not sent if the client disconnects before; its resources go with it.
        finalize(self, self._ending.close).atexit = False

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send the head and the pieces."""
        with self._ending:
            try:
                start = {"type": "http.response.start", "status": self.status_code}
                await send({**start, "headers": self.raw_headers})
                for piece in self._pieces:
                    await send_pieces(send, piece)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            except asyncio.CancelledError:
                self._left()
                raise


async def send_pieces(send: Send, data: bytes | memoryview) -> None:
    """Send a part of a body in pieces; more parts follow."""
    view = memoryview(data)
    for at in range(0, len(view), _PIECE):
        piece = {"type": "http.response.body", "body": view[at : at + _PIECE]}
        await send({**piece, "more_body": True})
