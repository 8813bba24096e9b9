"""Random numbers that depend on a request's seed and a position alone.

Preemption, the order of a batch and rejected drafts do not change them: there is no generator with
a state. The mixing function is SplitMix64's (Steele, Lea, Flood 2014).
"""

from __future__ import annotations

import torch

_GOLDEN = 0x9E3779B97F4A7C15
_FACTORS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_LAST_SHIFT = 31
_BITS = 24
"""Bits of a result: float32 holds them exactly."""


def uniform(seeds: torch.Tensor, positions: torch.Tensor, stream: int) -> torch.Tensor:
    """Return a number in [0, 1) for each row: ``[rows]`` float32.

    Args:
        seeds: ``[rows]`` int64, of the rows' requests.
        positions: ``[rows]`` int, tokens generated before the one being chosen.
        stream: a different number for each use, so that uses are independent.

    """
    state = _mixed(seeds + _signed(_GOLDEN * (stream + 1)))
    state = _mixed(state + (positions.long() + 1) * _signed(_GOLDEN))
    return _shifted(state, 64 - _BITS).float() / (1 << _BITS)


def _mixed(state: torch.Tensor) -> torch.Tensor:
    for shift, factor in _FACTORS:
        state = (state ^ _shifted(state, shift)) * _signed(factor)
    return state ^ _shifted(state, _LAST_SHIFT)


def _shifted(values: torch.Tensor, count: int) -> torch.Tensor:
    """Shift int64 values right without their sign."""
    return (values >> count) & ((1 << (64 - count)) - 1)


def _signed(number: int) -> int:
    """Return the int64 of the same 64 bits."""
    number &= (1 << 64) - 1
    return number - (1 << 64) if number >> 63 else number
