"""The number of users over a run: `ramp`, `spike` or `soak`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil

_CALM = 0.25
"""Share of the peak before and after a spike."""


def ramp(share: float, peak: int) -> int:
    """Return the users when a share of the time is over: 1, twice as many, ..., the peak.

    Each number of them stays as long as the others, so that it can be measured.
    """
    steps = [1]
    while steps[-1] < peak:
        steps.append(min(2 * steps[-1], peak))
    return steps[min(int(share * len(steps)), len(steps) - 1)]


def spike(share: float, peak: int) -> int:
    """Return a quarter of the peak, and the peak in the middle third of the time."""
    return peak if 1 / 3 <= share < 2 / 3 else ceil(_CALM * peak)


def soak(_share: float, peak: int) -> int:
    """Return the peak, all the time."""
    return peak


SHAPES: Mapping[str, Callable[[float, int], int]] = {"ramp": ramp, "spike": spike, "soak": soak}
