"""A time budget, and shares of what is left of it."""

from __future__ import annotations

import time
from collections.abc import Callable


class Deadline:
    """A moment some seconds from now."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds

    @property
    def left(self) -> float:
        """Seconds until then, 0 after it."""
        return max(0.0, self._end - self._clock())

    def share(self, parts: int) -> Deadline:
        """Return the end of one of so many equal parts of what is left.

        A part that ends early leaves its time to the others.
        """
        return Deadline(self.left / parts, self._clock)
