"""The interface for matching text patterns, on the host or on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from logit_processors.control import Control
from logit_processors.table import Table

ValueOf = Callable[[Any], float]
"""Returns an entry's addition to the tokens of its pattern, in nats; -inf suppresses them."""


class Texts(Protocol):
    """Matches text patterns on the rows of one model runner."""

    def table(self, slots: int, control: Control[Any], value_of: ValueOf) -> Table[Any]:
        """Return a table of entries with a text pattern each.

        Args:
            slots: as in :class:`~logit_processors.table.EngineFacts`.
            control: the control, which returns each entry's pattern.
            value_of: returns an entry's addition.

        """
