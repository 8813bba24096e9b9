"""The tree of Sensefield's own exceptions.

SensefieldError
├── StartupError            the server refuses to start, and says why
├── EmbeddedModelError      service.embedded_model: the model that is built in cannot be had
├── UnembeddingError        service.engine.unembedding: the model has none that can be read
└── RequestError            the client's request; carries status, type, param and code
    ├── BadRequestError         400
    ├── AuthenticationError     401, with WWW-Authenticate
    ├── ForbiddenError          403
    ├── NotFoundError           404
    ├── MethodError             405, with Allow
    ├── SlowClientError         408, and the connection closes
    ├── ConflictError           409
    │   └── UnusableVectorError     service.vectors.entries: stored, but not for this model
    ├── PreconditionFailedError 412
    ├── TooLargeError           413
    ├── UnsupportedMediaError   415
    ├── RateLimitedError        429, with Retry-After
    ├── HeadersTooLargeError    431
    ├── EngineError             500
    ├── ControlFailedError      500
    ├── SaturatedError          503, with Retry-After
    ├── StoreUnavailableError   503, with Retry-After
    ├── NotReadyError           503, with Retry-After
    ├── DeadlineError           504
    └── StoreFullError          507
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, ClassVar

MAX_ECHO = 200
"""Most characters of the client's input that a message repeats."""


class SensefieldError(Exception):
    """Root of the tree."""


class StartupError(SensefieldError):
    """The server cannot start with its flags and settings."""


class RequestError(SensefieldError):
    """A refused request; it becomes an OpenAI error object.

    Args:
        message: what is wrong, and what is allowed, without the field's path.
        param: JSON path of the field; the answer's message begins with it.
        code: a word for programs.

    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    retry_after: int | None = None
    """Seconds for the Retry-After header."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code

    @property
    def kind(self) -> str:
        """Return the metrics' label for the error."""
        return self.code or self.type

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers of the answer."""
        return {"Retry-After": str(self.retry_after)} if self.retry_after else {}

    def to_body(self) -> dict[str, Any]:
        """Return the OpenAI error object."""
        return error_body(self.message, self.type, self.param, self.code)


class BadRequestError(RequestError):
    """A value that is not allowed."""

    status = 400
    type = "invalid_request_error"


class AuthenticationError(RequestError):
    """No key, or an unknown one."""

    status = 401
    type = "authentication_error"

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers of the answer."""
        return {"WWW-Authenticate": "Bearer"}


class ForbiddenError(RequestError):
    """A key without the role."""

    status = 403
    type = "permission_error"


class NotFoundError(RequestError):
    """A model or vector that does not exist."""

    status = 404
    type = "not_found_error"


class MethodError(RequestError):
    """A method that a path does not have.

    Args:
        message: names the method.
        allowed: the path's methods.

    """

    status = 405
    type = "invalid_request_error"

    def __init__(self, message: str, allowed: Iterable[str]) -> None:
        super().__init__(message, None, "method_not_allowed")
        self._allowed = ", ".join(sorted(allowed))

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers of the answer."""
        return {"Allow": self._allowed}


class SlowClientError(RequestError):
    """A client that takes too long to send its request."""

    status = 408
    type = "request_timeout_error"

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers of the answer."""
        return {"Connection": "close"}


class ConflictError(RequestError):
    """A name that exists already, or whose vector the model cannot use."""

    status = 409
    type = "conflict_error"


class PreconditionFailedError(RequestError):
    """The condition of If-Match or If-None-Match does not hold."""

    status = 412
    type = "precondition_failed_error"


class TooLargeError(RequestError):
    """A body beyond the limit."""

    status = 413
    type = "invalid_request_error"


class UnsupportedMediaError(RequestError):
    """A body of the wrong kind."""

    status = 415
    type = "invalid_request_error"


class RateLimitedError(RequestError):
    """A key's limit is reached; the client may retry in ``seconds``."""

    status = 429
    type = "rate_limit_error"
    retry_after = 1

    def __init__(self, message: str, seconds: int) -> None:
        super().__init__(message, None, "rate_limit_exceeded")
        self.retry_after = seconds


class HeadersTooLargeError(RequestError):
    """A URL and headers beyond the limit."""

    status = 431
    type = "invalid_request_error"


class EngineError(RequestError):
    """The engine has died."""

    type = "InternalServerError"  # vLLM's word for it, on all its routes


class ControlFailedError(RequestError):
    """A plugin's control raised an exception, or made a row with NaN."""

    type = "server_error"

    CODE: ClassVar[str] = "control_failed"


class SaturatedError(RequestError):
    """The server has no capacity for the request now."""

    status = 503
    type = "overloaded_error"
    retry_after = 5

    QUEUE_FULL: ClassVar[str] = "queue_full"
    BODIES_FULL: ClassVar[str] = "bodies_full"
    BUDGET_EXHAUSTED: ClassVar[str] = "distribution_budget_exhausted"
    PATTERNS_FULL: ClassVar[str] = "patterns_full"


class StoreUnavailableError(RequestError):
    """The vector store does not answer, or another server keeps it busy."""

    status = 503
    retry_after = 5


class NotReadyError(RequestError):
    """The server is stopping, or its engine hangs."""

    status = 503
    type = "not_ready_error"
    retry_after = 5


class DeadlineError(RequestError):
    """A request that took longer than it may."""

    status = 504
    type = "timeout_error"


class StoreFullError(RequestError):
    """The vector store has no room."""

    status = 507
    type = "insufficient_storage_error"


def error_body(
    message: str, type_: str, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """Return the OpenAI error object, whose message begins with the field's path.

    Clients print the message alone.
    """
    led = led_by(param, message)
    return {"error": {"message": led, "type": type_, "param": param, "code": code}}


def led_by(param: str | None, message: str) -> str:
    """Return a message that begins with the field's path; unchanged without a field."""
    if param is None:
        return message
    named = re.match(rf"[`'\"]?{re.escape(param)}[`'\"]?:? ", message)
    return f"{param}: {message[named.end() :] if named else message}"


def echo(value: object, room: int = MAX_ECHO) -> str:
    """Return a client's value for an error message, in at most ``room`` characters."""
    text = repr(value)
    return text if len(text) <= room else text[: room - 1] + "…"
