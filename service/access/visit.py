"""What is known of one request on its way in and out, kept in its ASGI scope."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Self

from starlette.types import Scope

from service.access.keys import Key
from service.errors import RequestError

TENANT: ContextVar[str | None] = ContextVar("tenant", default=None)
"""Whose request the running task works on, for what never sees the request itself."""
_PLACE = "sensefield"


@dataclass(slots=True)
class Visit:
    """One request, from the door to the end of its answer."""

    request_id: str = ""
    """The client's, or a new one; empty where no line is written."""
    key: Key | None = None
    """The key it came with; None on an open server."""
    controls: dict[str, int] = field(default_factory=dict)
    """Entries of control by kind."""
    tokens: int | None = None
    """Tokens generated, where Sensefield's own routes count them."""
    outcome: str | None = None
    """How the route says it ended."""
    cut_off: str | None = None
    """The outcome of a request that the door ended, whatever its route says."""
    has_left: bool = False
    """True once the client has gone before its answer was whole."""
    closing: Callable[[RequestError], bytes] | None = None
    """How a stream that is none of server-sent events tells of an error at its end."""
    is_between_parts: bool = True
    """Whether a stream has come to the end of an event or message."""
    status: int | None = None
    bytes: int = 0
    """Of the answer's body."""
    prompt: Any = None
    """What was asked, if the settings ask for it."""
    sent: Collection[str] = ()
    """Names of the body's fields that are not null."""

    @classmethod
    def of(cls, scope: Scope) -> Self:
        """Return the visit of a scope, which is a new one the first time."""
        visit: Self = scope.setdefault(_PLACE, cls())
        return visit

    def end(self, outcome: str, tokens: int | None) -> None:
        """Take down how the route says it ended."""
        self.outcome, self.tokens = self.cut_off or outcome, tokens

    def leave(self) -> None:
        """Take down that the client has left; a later outcome of the route does not count."""
        self.has_left = True
        self.cut_off = self.cut_off or "cancelled"

    @property
    def tenant(self) -> str | None:
        """Return whose vectors it works on; None for those that all share."""
        return None if self.key is None else self.key.tenant


def outcome_of(status: int) -> str:
    """Return the outcome that a status tells; a 503 turns away what may come again."""
    if status < 400:
        return "ok"
    if status < 500:
        return "client_error"
    return "unavailable" if status == 503 else "server_error"
