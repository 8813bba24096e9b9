"""The state of one request, kept in its ASGI scope."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Self

from starlette.types import Scope

from service.access.keys import Key
from service.errors import RequestError

CURRENT_TENANT: ContextVar[str | None] = ContextVar("tenant", default=None)
"""The tenant of the running task's request, for code that does not get the request."""
_PLACE = "sensefield"


@dataclass(slots=True)
class Visit:
    """The state of one request, from the door to the end of its answer."""

    request_id: str = ""
    """The client's id, or a new one; empty if no audit line is written."""
    key: Key | None = None
    """The key it came with; None on an open server."""
    controls: dict[str, int] = field(default_factory=dict)
    """Entries of control by kind."""
    tokens: int | None = None
    """Tokens generated, where Sensefield's own routes count them."""
    outcome: str | None = None
    """The outcome that the route reported."""
    cut_off: str | None = None
    """The outcome of a request that the door ended; it overrides the route's."""
    has_left: bool = False
    """True once the client has gone before its answer was whole."""
    closing: Callable[[RequestError], bytes] | None = None
    """Encodes an error as the end of a stream other than server-sent events."""
    is_between_parts: bool = True
    """True while a stream is at the end of an event or message."""
    status: int | None = None
    bytes: int = 0
    """Bytes of the answer's body."""
    prompt: Any = None
    """The prompt, if the audit log records prompts."""
    sent: Collection[str] = ()
    """Names of the body's fields that are not null."""

    @classmethod
    def of(cls, scope: Scope) -> Self:
        """Return the state in a scope; the first call creates it."""
        visit: Self = scope.setdefault(_PLACE, cls())
        return visit

    def end(self, outcome: str, tokens: int | None) -> None:
        """Record the outcome that the route reports."""
        self.outcome, self.tokens = self.cut_off or outcome, tokens

    def leave(self) -> None:
        """Record that the client has disconnected; it overrides the route's outcome."""
        self.has_left = True
        self.cut_off = self.cut_off or "cancelled"

    @property
    def tenant(self) -> str | None:
        """Return the tenant whose vectors the request uses; None for the shared vectors."""
        return None if self.key is None else self.key.tenant


def outcome_of(status: int) -> str:
    """Return the outcome of a status; 503 means that the client may retry."""
    if status < 400:
        return "ok"
    if status < 500:
        return "client_error"
    return "unavailable" if status == 503 else "server_error"
