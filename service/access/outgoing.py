"""The headers and the error form of every answer.

Routes, the router, middlewares and the door each write errors in their own form. This module
converts them to the error object of the path's API: OpenAI's or Anthropic's. A request without an
answer, because an exception or the end of the server stopped its handler, gets one too.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import orjson
from starlette._utils import get_route_path
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.access.cors import Headers, cors_headers
from service.access.dialect import (
    ANTHROPIC_EVENT,
    EVENTS,
    anthropic_error,
    error_event,
    is_openai,
    message_in,
    openai_error,
    speaks_anthropic,
)
from service.access.refusal import error_response
from service.access.visit import Visit
from service.errors import NotReadyError, RequestError

FINAL = frozenset({409, 504, 507})
"""Statuses after which SDKs would retry a request that must fail again."""
_STREAM = (
    # A proxy such as nginx would buffer the events.
    (b"x-accel-buffering", b"no"),
    (b"cache-control", b"no-cache"),
)
_FAILED = "the server failed; its log says why"
_ENDED = "the server ended before it had answered"
_LAST_WORD_SECONDS = 1.0
"""Longest wait for a slow reader to take the error; the process may be ending."""
_OF_BODY = frozenset({b"content-type", b"content-length"})


class Outgoing:
    """Add the common headers to answers, and convert errors."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and make sure that it is answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(scope, receive, send)
        try:
            await self._app(scope, receive, answer.send)
        except ClientDisconnect:
            raise
        except Exception:
            # Deadline has ended a stream that has begun.
            await answer.fail(RequestError(_FAILED), only_unbegun=True)
            raise
        except asyncio.CancelledError:
            visit = Visit.of(scope)
            visit.cut_off = visit.cut_off or "unavailable"
            await answer.fail(NotReadyError(_ENDED, code="draining"))
            raise
        await answer.fail(RequestError(_FAILED), only_unbegun=True)


class _Answer:
    """Sends the answer to one request."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        # Read before routing changes the scope.
        self._is_anthropic = speaks_anthropic(get_route_path(scope))
        self._receive = receive
        self._send = send
        self._visit = Visit.of(scope)
        self._held: Message | None = None
        self._body = bytearray()
        self._has_begun = False
        self._is_whole = False
        self._streams = False

    async def send(self, message: Message) -> None:
        """Send a message; an error's messages wait until its body is complete."""
        if message["type"] == "http.response.start":
            if message["status"] >= 400:
                self._held = message
                return
            self._has_begun = True
            message["headers"] = self._headers(message)
        elif self._held is not None:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._send_error(self._held)
            return
        else:
            self._is_whole = not message.get("more_body", False)
            if self._is_anthropic and self._streams:
                message["body"] = self._event(message.get("body", b""))
        await self._send(message)

    def _event(self, data: bytes) -> bytes:
        """Return a part of Anthropic's stream; vLLM's errors get a type that Anthropic has."""
        if not data.startswith(ANTHROPIC_EVENT) or b'"request_id"' in data:
            return data
        error = {"error": {"message": message_in(data.partition(b"data: ")[2], 500)}}
        return error_event(500, error, self._visit.request_id, anthropic=True)

    async def fail(self, error: RequestError, *, only_unbegun: bool = False) -> None:
        """Send an error in the place of an answer that has not begun, or at a stream's end.

        An answer that is whole stays as it is, and a client that has left gets nothing.

        Args:
            error: the error.
            only_unbegun: whether an answer that has begun stays as it is.

        """
        if self._is_whole or self._visit.has_left or (only_unbegun and self._has_begun):
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORD_SECONDS):
                if not self._has_begun:
                    self._held = None
                    self._body.clear()
                    await error_response(error)(self._scope, self._receive, self.send)
                elif self._visit.is_between_parts and (end := self._closing(error)) is not None:
                    await self.send({"type": "http.response.body", "body": end, "more_body": False})

    def _closing(self, error: RequestError) -> bytes | None:
        """Return the last bytes of a stream that ends with an error; None for other answers."""
        if self._visit.closing is not None:
            return self._visit.closing(error)
        if not self._streams:
            return None
        request_id = self._visit.request_id
        body = error.to_body()
        return error_event(error.status, body, request_id, anthropic=self._is_anthropic)

    async def _send_error(self, start: Message) -> None:
        self._has_begun = self._is_whole = True
        body = bytes(self._body)
        shaped = self._shaped(start["status"], body)
        headers = self._headers(start)
        if shaped is not body:
            kept = [each for each in headers if each[0].lower() not in _OF_BODY]
            length = str(len(shaped)).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", length), *kept]
        await self._send({**start, "headers": headers})
        await self._send({"type": "http.response.body", "body": shaped, "more_body": False})

    def _shaped(self, status: int, body: bytes) -> bytes:
        """Return an error's body as the error object of the path's API."""
        if self._is_anthropic:
            message = message_in(body, status)
            return orjson.dumps(anthropic_error(status, message, self._visit.request_id))
        if is_openai(body):
            return body
        return orjson.dumps(openai_error(status, message_in(body, status)))

    def _headers(self, start: Message) -> Headers:
        """Return the headers of an answer, with the common ones added."""
        headers: Headers = list(start.get("headers", ()))
        have = {name.lower(): value for name, value in headers}
        if start["status"] in FINAL:
            headers.append((b"x-should-retry", b"false"))
        elif start["status"] == 503 and b"retry-after" not in have:
            headers.append((b"retry-after", str(NotReadyError.retry_after).encode()))
        self._streams = have.get(b"content-type", b"").startswith(EVENTS.encode())
        if self._streams:
            headers += (each for each in _STREAM if each[0] not in have)
        return headers + cors_headers(self._scope, headers)
