"""Biases on tokens, summed so that at any position a token has one at most."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction

from logit_processors.controls import TokenBias, Window


def summed_token_bias(entries: Iterable[TokenBias]) -> list[tuple[int, float, Window]]:
    """Return (token id, sum of adds in nats, window); windows of one token never overlap.

    They are cut where others begin or end. Sums are exact before they are rounded, so that
    nothing is left of an add whose window has ended.
    """
    changes: dict[int, dict[int, Fraction]] = {}
    for entry in entries:
        of_token = changes.setdefault(entry.token_id, {})
        for position, change in ((entry.when.start, entry.add), (entry.when.stop, -entry.add)):
            if position is not None:
                of_token[position] = of_token.get(position, Fraction()) + Fraction(change)
    return [
        (token_id, add, when)
        for token_id, of_token in changes.items()
        for add, when in _running_sums(of_token)
    ]


def _running_sums(changes: dict[int, Fraction]) -> Iterator[tuple[float, Window]]:
    """Add up changes by position; a stretch that comes to 0 is left out, as is no change."""
    total, start = Fraction(), 0
    for at in sorted(changes):
        if not changes[at]:
            continue
        if total:
            yield float(total), Window(start, at)
        total, start = total + changes[at], at
    if total:
        yield float(total), Window(start)
