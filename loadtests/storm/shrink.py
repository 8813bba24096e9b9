"""The smallest requests that still go wrong in the same way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from loadtests.measure.deadline import Deadline
from loadtests.storm.crowd import Failure
from loadtests.storm.shot import Shot

Fails = Callable[[Sequence[Shot]], Awaitable[bool]]
"""Sends requests at once and says whether one goes wrong as the failure did."""
Sliced = TypeVar("Sliced", str, list[Any])
_SHORT = 4
"""Texts and lists up to this length are not halved, but lose one part at a time."""


class Shrinker:
    """Shrinks failures for as long as there is time."""

    def __init__(self, fails: Fails, deadline: Deadline) -> None:
        self._fails = fails
        self._deadline = deadline

    async def shrink(self, failure: Failure) -> list[Shot]:
        """Return the fewest and smallest requests that were found; none if it does not repeat."""
        group = [replace(failure.shot, patience=None)]
        if not await self._fails(group):
            group = list(failure.crowd)
            if not await self._fails(group):
                return []
            group = await self._fewer(group)
        for at in range(len(group)):
            group = await self._smaller(group, at)
        return group

    async def _fewer(self, group: list[Shot]) -> list[Shot]:
        """Drop requests in ever smaller parts, as delta debugging does (Zeller 2002)."""
        size = len(group) // 2
        while size and self._deadline.left:
            for start in range(0, len(group), size):
                rest = group[:start] + group[start + size :]
                if rest and await self._fails(rest):
                    group = rest
                    break
            else:
                size //= 2
        return group

    async def _smaller(self, group: list[Shot], at: int) -> list[Shot]:
        """Make the body of one request smaller as long as that changes nothing."""
        found = True
        while found:
            found = False
            for body in _smaller_values(group[at].fields):
                if not self._deadline.left:
                    return group
                smaller = [*group[:at], replace(group[at], body=body), *group[at + 1 :]]
                if await self._fails(smaller):
                    group, found = smaller, True
                    break
        return group


def _smaller_values(value: Any) -> Iterator[Any]:
    """Yield values a step smaller than one of JSON: without a part, or with a smaller part."""
    if isinstance(value, Mapping):
        for name in value:
            yield {other: part for other, part in value.items() if other != name}
        for name, part in value.items():
            for smaller in _smaller_values(part):
                yield {**value, name: smaller}
    elif isinstance(value, str):
        yield from _parts(value)
    elif isinstance(value, list):
        yield from _parts(value)
        if len(value) <= _SHORT:
            for at, part in enumerate(value):
                for smaller in _smaller_values(part):
                    yield [*value[:at], smaller, *value[at + 1 :]]
    elif isinstance(value, int) and not isinstance(value, bool) and abs(value) > 1:
        yield value // 2 if value > 0 else -(-value // 2)


def _parts(value: Sliced) -> Iterator[Sliced]:
    """Yield the halves of a long text or list, or a short one without each of its parts."""
    if len(value) > _SHORT:
        yield value[: len(value) // 2]
        yield value[len(value) // 2 :]
    elif len(value) > 1:
        for at in range(len(value)):
            yield value[:at] + value[at + 1 :]
