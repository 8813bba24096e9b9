"""Counts of the running requests that need each content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from service.metrics import LEASES


class Leases:
    """Number of running requests by the SHA-256 of the contents that they need."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def __contains__(self, sha256: object) -> bool:
        return sha256 in self._counts

    @contextmanager
    def hold(self, contents: Iterable[str]) -> Iterator[None]:
        """Count contents as needed for as long as the context lasts."""
        held = set(contents)
        self._counts.update(held)
        LEASES.inc(len(held))
        try:
            yield
        finally:
            LEASES.dec(len(held))
            for sha256 in held:
                self._counts[sha256] -= 1
                if not self._counts[sha256]:
                    del self._counts[sha256]
