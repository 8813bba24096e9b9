"""The audit log: one line per request, without the key's secret, with prompts only if enabled."""

from __future__ import annotations

import re
import sys
import time
import uuid
from typing import Any

import orjson
import structlog
from starlette._utils import get_route_path
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.access.roles import LIVENESS
from service.access.visit import Visit, outcome_of
from service.errors import MAX_ECHO

HEADER = b"x-request-id"
HEADERS = (HEADER, b"request-id")
"""Headers with the id of an answer: OpenAI's clients read the first, Anthropic's the second."""
_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


def audit_logger() -> Any:
    """Return the logger: one JSON object per line, or columns on a terminal."""
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    if sys.stdout.isatty():
        renderer: Any = structlog.dev.ConsoleRenderer()
        return structlog.wrap_logger(structlog.PrintLogger(), processors=[stamp, renderer])
    # Written to the buffer: vLLM puts a prefix before each line of sys.stdout.
    logger = structlog.BytesLogger(sys.stdout.buffer)
    renderer = structlog.processors.JSONRenderer(serializer=orjson.dumps)
    return structlog.wrap_logger(logger, processors=[stamp, renderer])


class Audit:
    """Give each request an id, and write its log line when it has ended."""

    def __init__(self, app: ASGIApp, logger: Any) -> None:
        self._app = app
        self._logger = logger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if get_route_path(scope) == LIVENESS:
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        visit = Visit.of(scope)
        visit.request_id = request_id.decode()
        ids = [(name, request_id) for name in HEADERS]
        started = time.perf_counter()
        is_whole = False

        async def counted_send(message: Message) -> None:
            nonlocal is_whole
            if visit.has_left:
                return
            if message["type"] == "http.response.body":
                visit.bytes += len(message.get("body", b""))
                is_whole = not message.get("more_body", False)
            elif message["type"] == "http.response.start":
                visit.status = message["status"]
                message["headers"] = [*message["headers"], *ids]
            await send(message)

        async def watched_receive() -> Message:
            message = await receive()
            # uvicorn also sends a disconnect after a complete answer.
            if message["type"] == "http.disconnect" and not is_whole:
                visit.leave()
            return message

        try:
            await self._app(scope, watched_receive, counted_send)
        except ClientDisconnect:
            raise
        except Exception:
            # If the app has sent nothing, uvicorn answers with 500.
            if not visit.has_left:
                visit.status = visit.status or 500
            visit.outcome = outcome_of(500)
            raise
        finally:
            self._logger.info("request", **self._line(scope, visit, started))

    def _line(self, scope: Scope, visit: Visit, started: float) -> dict[str, Any]:
        ended = "cancelled" if visit.status is None else outcome_of(visit.status)
        route = getattr(scope.get("route"), "path", None)
        line = {
            "request_id": visit.request_id,
            "key": None if visit.key is None else visit.key.name,
            "method": scope.get("method"),
            # Without a route, the path is the client's own text.
            "route": route or ascii(get_route_path(scope))[1:-1][:MAX_ECHO],
            "outcome": visit.cut_off or visit.outcome or ended,
            "status": visit.status,
            "controls": visit.controls,
            "tokens": visit.tokens,
            "bytes": visit.bytes,
            "seconds": round(time.perf_counter() - started, 6),
        }
        return line if visit.prompt is None else {**line, "prompt": visit.prompt}


def _request_id(scope: Scope) -> bytes:
    """Return the client's request id if it is valid, or else a new one."""
    given: bytes = next((value for name, value in scope["headers"] if name == HEADER), b"")
    return given if _ID.fullmatch(given) else uuid.uuid4().hex.encode()
