"""Time limits of a request: to send its body, to read its answer, and in all.

A late request ends as if its client had disconnected, which frees its resources in the engine on
every route; then the client receives the error. A route that does not watch for a disconnect is
not interrupted, and its own answer is sent.

A stream whose route raises an exception ends with an error too: vLLM's `/v1/responses` raises
when the engine has died.
"""

from __future__ import annotations

import asyncio
import logging
from math import inf, isfinite
from typing import Any

from starlette._utils import get_route_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from vllm.entrypoints.serve.exception_handling.error_response import create_error_response

from service.access.dialect import EVENTS, error_event, speaks_anthropic
from service.access.parameters import body_of
from service.access.refusal import error_answer, refuse
from service.access.slow_reader import within
from service.access.visit import Visit
from service.errors import BadRequestError, DeadlineError, RequestError, SlowClientError, echo
from service.metrics import REJECTED
from service.settings import Settings

HEADER = b"x-request-timeout"
"""A client's own time limit in seconds; it can only lower the server's."""
_LEFT = {"type": "http.disconnect"}
_log = logging.getLogger("vllm.sensefield")


class Deadline:
    """End a request whose body or answer is not complete in time, or whose answer is not read."""

    def __init__(self, app: ASGIApp, own: Settings) -> None:
        self._app = app
        self._own = own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; a WebSocket has no time limit."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            seconds = _seconds(scope, self._own.request_timeout_seconds)
        except RequestError as error:
            await refuse(error, scope, receive, send)
            return

        async def answer(send: Send) -> None:
            timed = _Timed(scope, receive, send, self._own.receive_timeout_seconds, seconds)
            try:
                await self._app(scope, timed.receive, timed.send)
            except Exception as error:
                if timed.error is None:
                    await timed.send_raised(error)
                    raise
                # The app saw a disconnect; its exception is no answer to the client.
                _log.info("a late request ended with %r", error)
            if timed.error is not None:
                await timed.send_error(timed.error)

        if not await within(self._own.send_timeout_seconds, send, answer):
            visit = Visit.of(scope)
            visit.cut_off = visit.cut_off or "cancelled"


class _Timed:
    """Receive and send for one request.

    Args:
        scope: the request's.
        receive: from the client.
        send: to the client.
        to_receive: seconds from now for the whole body.
        in_all: seconds from now for body and answer, None for no limit.

    """

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, to_receive: float, in_all: float | None
    ) -> None:
        self._scope = scope
        # Asked for before routing writes into the scope.
        self._is_anthropic = speaks_anthropic(get_route_path(scope))
        self._receive = receive
        self._send = send
        self._visit = Visit.of(scope)
        self._to_receive = to_receive
        self._in_all = inf if in_all is None else in_all
        now = asyncio.get_running_loop().time()
        self._body_by = now + self._to_receive
        self._answer_by = now + self._in_all
        self._started = False
        self._streams = False
        self._answered = False
        self.error: RequestError | None = None
        """The error for which the app received a disconnect."""

    async def receive(self) -> Message:
        """Return the next message, or a disconnect once a limit has passed."""
        if self.error is not None:
            return _LEFT
        by = min(self._body_by, self._answer_by)
        try:
            async with asyncio.timeout_at(by):
                message = await self._receive()
        except TimeoutError:
            self._cut_off(self._slow() if by == self._body_by else self._late())
            return _LEFT
        if message["type"] == "http.request" and not message.get("more_body", False):
            self._body_by = inf
        return message

    async def send(self, message: Message) -> None:
        """Send the app's message, unless a limit has passed."""
        if self.error is not None:
            return
        if message["type"] == "http.response.start":
            self._started = True
            media_type = dict(message["headers"]).get(b"content-type", b"")
            is_events = media_type.startswith(EVENTS.encode())
            self._streams = is_events or self._visit.closing is not None
        elif not message.get("more_body", False):
            self._answered = True
        await self._send(message)

    async def send_error(self, error: RequestError) -> None:
        """Send the error as the answer, or at the end of a stream that has begun."""
        if not self._started:
            await error_answer(error)(self._scope, self._receive, self._send)
        elif (closing := self._visit.closing) is not None:
            await self._end_stream(closing(error))
        else:
            await self._end_stream(self._event(error.status, error.to_body()))

    async def send_raised(self, error: Exception) -> None:
        """End a stream of events with its route's exception; other answers end elsewhere."""
        if self._started and self._visit.closing is None:
            # Starlette wraps an exception that its handlers cannot answer any more.
            cause = error.__cause__ if isinstance(error, RuntimeError) else None
            raised = cause if isinstance(cause, Exception) else error
            refused = create_error_response(raised).error
            body = body_of(refused, self._visit.sent)
            await self._end_stream(self._event(refused.code, body))

    async def _end_stream(self, end: bytes) -> None:
        if self._streams and self._visit.is_between_parts and not self._answered:
            await self._send({"type": "http.response.body", "body": end, "more_body": False})

    def _event(self, status: int, body: dict[str, Any]) -> bytes:
        """Return an error as an event."""
        request_id = self._visit.request_id
        return error_event(status, body, request_id, anthropic=self._is_anthropic)

    def _slow(self) -> RequestError:
        return SlowClientError(f"the body was not whole within {self._to_receive:g} s", "body")

    def _late(self) -> RequestError:
        message = f"the request was not answered within {self._in_all:g} s"
        return DeadlineError(message, code="deadline_exceeded")

    def _cut_off(self, error: RequestError) -> None:
        if self._answered:
            return
        self.error = error
        self._visit.cut_off = "client_error" if error.status < 500 else "deadline"
        REJECTED.labels(str(error.status), error.kind).inc()


def _seconds(scope: Scope, most: float | None) -> float | None:
    """Return the seconds that a request has, None for no limit."""
    value = dict(scope["headers"]).get(HEADER)
    if value is None:
        return most
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not (isfinite(seconds) and seconds > 0):
        raise BadRequestError(
            f"{echo(value.decode('latin-1'))} is no time; allowed: seconds, more than 0",
            HEADER.decode(),
        )
    return seconds if most is None else min(seconds, most)
