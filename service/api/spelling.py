"""Names that differ by a typing error."""

from __future__ import annotations

from collections.abc import Iterable

_LONG, _SHORT = 7, 4
"""Lengths of a name from which two typing errors, or one, are accepted."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name nearest to a name, None if no name is near.

    Capitals, hyphens and underscores make no difference; a long name may have two typing errors,
    a short one one.
    """
    plain = _plain(name)
    best: tuple[int, str] | None = None
    for each in known:
        wanted = _plain(each)
        size = min(len(wanted), len(plain))
        most = 2 if size >= _LONG else 1 if size >= _SHORT else 0
        if abs(len(wanted) - len(plain)) > most:
            continue
        slips = distance(plain, wanted, most)
        if slips <= most and (best is None or slips < best[0]):
            best = slips, each
    return None if best is None else best[1]


def distance(left: str, right: str, most: int) -> int:
    """Return the optimal string alignment distance of two texts (Boytsov 2011, section 2.1).

    It counts letters to add, drop, change or swap with the next one. If it is over ``most``, any
    greater number may be returned.
    """
    before: list[int] = []
    row = list(range(len(right) + 1))
    for at, letter in enumerate(left, 1):
        last, row = row, [at]
        for to, other in enumerate(right, 1):
            change = last[to - 1] + (letter != other)
            best = min(row[to - 1] + 1, last[to] + 1, change)
            if at > 1 and to > 1 and letter == right[to - 2] and left[at - 2] == other:
                best = min(best, before[to - 2] + 1)
            row.append(best)
        if min(row) > most and min(last) > most:
            return most + 1
        before = last
    return row[-1]


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")
