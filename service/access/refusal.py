"""Refusals: OpenAI error objects, or the close of a WebSocket."""

from __future__ import annotations

from fastapi.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from service.errors import RequestError
from service.metrics import REJECTED

_POLICY_VIOLATION = 1008


async def refuse(error: RequestError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with an OpenAI error object; close a WebSocket."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
    else:
        await error_response(error)(scope, receive, send)


def error_response(error: RequestError) -> JSONResponse:
    """Return the answer to a refused request, and count the refusal."""
    REJECTED.labels(str(error.status), error.kind).inc()
    return error_answer(error)


def error_answer(error: RequestError) -> JSONResponse:
    """Return an error as the answer to a request."""
    return JSONResponse(error.to_body(), error.status, error.headers)
