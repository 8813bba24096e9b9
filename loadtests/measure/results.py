"""Measured values and the goals they are held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

RATIO = ""
MICROSECONDS = "us"
SECONDS = "s"


@dataclass(frozen=True)
class Goal:
    """A limit in a unit, and the side on which to be."""

    limit: float
    unit: str
    at_least: bool

    def is_met(self, value: float) -> bool:
        """Say whether a value is on the right side, or on the limit."""
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}{self._suffix}"

    def show(self, value: float) -> str:
        """Return a value with the digits that its unit deserves."""
        digits = 1 if self.unit == MICROSECONDS else 3
        return f"{value:.{digits}f}{self._suffix}"

    @property
    def _suffix(self) -> str:
        return f" {self.unit}" if self.unit else ""


def at_least(limit: float) -> Goal:
    """Return the goal of a ratio of throughputs."""
    return Goal(limit, RATIO, at_least=True)


def at_most(limit: float, unit: str) -> Goal:
    """Return the goal of a duration."""
    return Goal(limit, unit, at_least=False)


@dataclass(frozen=True)
class Result:
    """A row of the table: a value a round, and stock vLLM's where it has any."""

    name: str
    title: str
    goal: Goal
    measured: Sequence[float]
    stock: Sequence[float] = ()
    stock_failed: bool = False
    """True if stock vLLM was measured and failed."""
    raw: dict[str, Any] = field(default_factory=dict, repr=False)
    """The raw measurements of the values."""

    @property
    def median(self) -> float:
        """The middle of the measured values."""
        return median(self.measured)

    @property
    def stock_median(self) -> float | None:
        """The middle of stock vLLM's values."""
        return median(self.stock) if self.stock else None

    @property
    def spread(self) -> tuple[float, float]:
        """The least and the largest measured value."""
        return min(self.measured), max(self.measured)

    @property
    def is_met(self) -> bool:
        """True if the median reaches the goal."""
        return self.goal.is_met(self.median)
