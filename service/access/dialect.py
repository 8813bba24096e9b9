"""Server-sent events, and the forms of an error: OpenAI's, and Anthropic's."""

from __future__ import annotations

from collections.abc import Mapping
from http.client import responses
from typing import Any

import orjson

from service.errors import MAX_ECHO, BadRequestError, NotFoundError, RequestError, error_body

EVENTS = "text/event-stream"
"""The media type of server-sent events."""
_ANTHROPIC = "/v1/messages"
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""Anthropic's types by status; other statuses below 500 are the request's, the rest the API's."""
ANTHROPIC_EVENT = b"event: error\n"
"""The first line of Anthropic's error event."""
_MOST = 10 * MAX_ECHO
"""Most characters of a message from vLLM or a middleware."""


def sse_event(body: Mapping[str, Any]) -> bytes:
    """Return a server-sent event."""
    return b"data: " + orjson.dumps(body) + b"\n\n"


def speaks_anthropic(path: str) -> bool:
    """Say whether the clients of a path, as the router sees it, are Anthropic's."""
    return path == _ANTHROPIC or path.startswith(f"{_ANTHROPIC}/")


def anthropic_error(status: int, message: str, request_id: str) -> dict[str, Any]:
    """Return Anthropic's error object."""
    other = "invalid_request_error" if status < 500 else "api_error"
    error = {"type": _ANTHROPIC_TYPES.get(status, other), "message": message}
    return {"type": "error", "error": error, "request_id": request_id}


def error_event(status: int, body: Mapping[str, Any], request_id: str, *, anthropic: bool) -> bytes:
    """Return an error as a server-sent event; Anthropic's clients expect a named event.

    Args:
        status: the error's.
        body: OpenAI's error object.
        request_id: the request's.
        anthropic: whether the client is Anthropic's.

    """
    if not anthropic:
        return sse_event(body)
    message = body["error"]["message"]
    return ANTHROPIC_EVENT + sse_event(anthropic_error(status, message, request_id))


def openai_error(status: int, message: str) -> dict[str, Any]:
    """Return OpenAI's error object for an error that has only a status and a message."""
    kind = BadRequestError if status < 500 else RequestError
    return error_body(message, NotFoundError.type if status == 404 else kind.type)


def is_openai(body: bytes) -> bool:
    """Say whether a body is OpenAI's error object."""
    parsed = _parsed(body)
    return isinstance(parsed, dict) and _is_error(parsed.get("error"))


def message_in(body: bytes, status: int) -> str:
    """Return the message of an error's body: OpenAI's, Anthropic's, FastAPI's or plain text."""
    found: Any = _parsed(body)
    if isinstance(found, dict):
        found = found.get("error", found.get("detail", found))
    if _is_error(found):
        found = found["message"]
    message: str = found if isinstance(found, str) else body.decode(errors="replace")
    return message.strip()[:_MOST] or responses.get(status, f"HTTP {status}")


def _is_error(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("message"), str)


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
