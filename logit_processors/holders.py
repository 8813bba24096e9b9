"""The API processes that need a content on a worker; several may serve one engine."""

from __future__ import annotations


class Holders:
    """The API processes that need each content; a content without one may be dropped."""

    def __init__(self) -> None:
        self._holders: dict[str, set[str]] = {}

    def add(self, content: str, holder: str) -> None:
        """Record that a process needs a content."""
        self._holders.setdefault(content, set()).add(holder)

    def remove(self, content: str, holder: str) -> bool:
        """Record that a process does not need a content; return True if no process does."""
        left = self._holders.get(content, set())
        left.discard(holder)
        if left:
            return False
        self._holders.pop(content, None)
        return True
