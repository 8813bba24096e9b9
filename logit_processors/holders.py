"""Who wants a vector kept on a worker: several API processes may serve one engine."""

from __future__ import annotations


class Holders:
    """The API processes that want each content; one that nobody wants may go."""

    def __init__(self) -> None:
        self._holders: dict[str, set[str]] = {}

    def add(self, content: str, holder: str) -> None:
        """Note that a process wants a content."""
        self._holders.setdefault(content, set()).add(holder)

    def remove(self, content: str, holder: str) -> bool:
        """Note that a process wants it no longer; returns whether nobody does."""
        left = self._holders.get(content, set())
        left.discard(holder)
        if left:
            return False
        self._holders.pop(content, None)
        return True
