"""What is known of one request on its way in and out, kept in its ASGI scope."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

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

    @classmethod
    def of(cls, scope: Scope) -> Self:
        """Return the visit of a scope, which is a new one the first time."""
        visit: Self = scope.setdefault(_PLACE, cls())
        return visit

    @property
    def tenant(self) -> str | None:
        """Return whose vectors it works on; None for those that all share."""
        return None if self.key is None else self.key.tenant
