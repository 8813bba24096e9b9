"""A refusal at the door, in the protocol that was spoken."""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from service.api.route import error_response
from service.errors import RequestError

_POLICY_VIOLATION = 1008


async def refuse(error: RequestError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with an OpenAI error object; a WebSocket, which has no such answer, is closed."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
    else:
        await error_response(error)(scope, receive, send)
