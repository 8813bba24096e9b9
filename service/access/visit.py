"""What is known of one request on its way in and out, kept in its ASGI scope."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

from starlette.types import Scope

from service.access.keys import Key

_PLACE = "sensefield"


@dataclass(slots=True)
class Visit:
    """One request, from the door to the end of its answer."""

    key: Key | None = None
    """The key it came with; None on an open server."""
    controls: dict[str, int] = field(default_factory=dict)
    """Entries of control by kind."""
    tokens: int | None = None
    """Tokens generated, where Sensefield's own routes count them."""
    outcome: str | None = None
    """How the route says it ended."""
    status: int | None = None
    bytes: int = 0
    """Of the answer's body."""
    prompt: Any = None
    """What was asked, if the settings ask for it."""

    @classmethod
    def of(cls, scope: Scope) -> Self:
        """Return the visit of a scope, which is a new one the first time."""
        visit: Self = scope.setdefault(_PLACE, cls())
        return visit

    def end(self, outcome: str, tokens: int) -> None:
        """Take down how the route says it ended."""
        self.outcome, self.tokens = outcome, tokens

    @property
    def tenant(self) -> str | None:
        """Return whose vectors it works on; None for those that all share."""
        return None if self.key is None else self.key.tenant
