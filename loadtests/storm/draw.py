"""Random choices that a number repeats."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")
Field = Callable[[], Any]

WORDS = (
    *("the", "a", "of", "and", "river", "mountain", "city", "story", "old", "quiet", "small"),
    *("people", "began", "history", "light", "stone", "water", "garden", "bridge", "voice"),
    *("morning", "winter", "letter", "road", "window", "sea"),
)
"""Each is one token, or two, in any model's vocabulary."""
PIECES = (" river", " the", "a", "\n", "  ", ".", " naïve", "ß", "日本", "🌊", "é", '"', "{", "1")
"""Texts of one byte and of several a character, whole tokens and parts of one."""


class Draw:
    """Draws the parts of one request."""

    def __init__(self, seed: int, number: int) -> None:
        self._random = Random(f"{seed}:{number}")

    def chance(self, share: float) -> bool:
        """Return True in that share of all cases."""
        return self._random.random() < share

    def one_of(self, options: Sequence[T]) -> T:
        """Return one of the options."""
        return self._random.choice(options)

    def weighted(self, options: Mapping[T, float]) -> T:
        """Return one of the options, each as often as its weight says."""
        return self._random.choices(list(options), list(options.values()))[0]

    def several(self, make: Callable[[], T], most: int, least: int = 1) -> list[T]:
        """Return some values, mostly few."""
        return [make() for _ in range(least - 1 + self.few(most - least + 1))]

    def integer(self, low: int, high: int) -> int:
        """Return an integer, both ends included."""
        return self._random.randint(low, high)

    def few(self, most: int) -> int:
        """Return a number from 1 on, mostly a small one."""
        return min(self.integer(1, most) for _ in range(2))

    def number(self, low: float, high: float) -> float:
        """Return a number of three digits after the point."""
        return round(self._random.uniform(low, high), 3)

    def fields(self, share: float, makers: Mapping[str, Field]) -> dict[str, Any]:
        """Return some of the fields, each in that share of all cases."""
        return {name: make() for name, make in makers.items() if self.chance(share)}

    def words(self, count: int) -> str:
        """Return so many words."""
        return " ".join(self._random.choices(WORDS, k=count))

    def text(self) -> str:
        """Return a short text, of any characters."""
        return "".join(self._random.choices(PIECES, k=self.integer(1, 4)))

    def token_ids(self, vocabulary: int, count: int) -> list[int]:
        """Return so many tokens of the vocabulary."""
        return [self.integer(0, vocabulary - 1) for _ in range(count)]
