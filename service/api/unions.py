"""Errors of a union type: only those of the member that the value was most likely meant to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_NAMED_KIND = ("literal_error", "enum")
"""Errors of a discriminating field such as ``role`` or ``type``."""


@dataclass(frozen=True)
class Located:
    """A pydantic error with its location.

    Args:
        steps: parts of its location, each with True if it is part of the body's path, or False if
            it names a member of a union.
        error: pydantic's error.

    """

    steps: tuple[tuple[str | int, bool], ...]
    error: Mapping[str, Any]

    @property
    def path(self) -> tuple[str | int, ...]:
        """Return the parts that belong to the body's path."""
        return tuple(part for part, is_in in self.steps if is_in)


def meant(errors: Sequence[Located], start: int = 0) -> list[Located]:
    """Return the errors that help a client; pydantic lists the errors of each member of a union.

    Args:
        errors: all errors of one value.
        start: number of steps that they share.

    """
    chosen: list[Located] = []
    unions: dict[tuple[Any, ...], dict[str | int, list[Located]]] = {}
    for each in errors:
        at = _kind_at(each, start)
        if at is None:
            chosen.append(each)
        else:
            kinds = unions.setdefault(each.steps[:at], {})
            kinds.setdefault(each.steps[at][0], []).append(each)
    for shared, kinds in unions.items():
        depth = len(shared)
        by_kind = [meant(of_kind, depth + 1) for of_kind in kinds.values()]
        apart = [each for of_kind in by_kind for each in _apart(of_kind)]
        chosen += _likeliest(apart, sum(is_in for _, is_in in shared))
    return chosen


def _apart(errors: Sequence[Located]) -> list[list[Located]]:
    """Split errors of members with one name: a repeated path starts the next member's errors."""
    kinds: list[list[Located]] = [[]]
    for each in errors:
        if any(each.path == other.path for other in kinds[-1]):
            kinds.append([])
        kinds[-1].append(each)
    return kinds


def _kind_at(error: Located, start: int) -> int | None:
    """Return the index of the next step that names a member, None if there is none."""
    later = range(start, len(error.steps))
    return next((at for at in later if not error.steps[at][1]), None)


def _likeliest(kinds: list[list[Located]], depth: int) -> list[Located]:
    """Return the errors of the members that a value was most likely meant to be.

    Args:
        kinds: the errors of each member.
        depth: length of the value's path.

    """
    kinds = _without(kinds, lambda each: _is_type(each) and len(each.path) == depth)
    named = [[each for each in kind if _names_kind(each, depth)] for kind in kinds]
    if len(kinds) > 1 and all(named):
        return _merged([each for kind in named for each in kind])
    kinds = _without(kinds, lambda each: _names_kind(each, depth))
    kinds = _without(kinds, _is_type)
    fewest = min(map(len, kinds))
    return [each for kind in kinds if len(kind) == fewest for each in kind]


def _without(kinds: list[list[Located]], is_wrong: Any) -> list[list[Located]]:
    """Return the members without a wrong error, or all if each member has one."""
    return [kind for kind in kinds if not any(map(is_wrong, kind))] or kinds


def _is_type(each: Located) -> bool:
    return str(each.error["type"]).endswith("_type")


def _names_kind(each: Located, depth: int) -> bool:
    return each.error["type"] in _NAMED_KIND and len(each.path) == depth + 1


def _merged(errors: list[Located]) -> list[Located]:
    """Return one error for each field, with all allowed values."""
    merged: dict[tuple[str | int, ...], tuple[Located, list[str]]] = {}
    for each in errors:
        _, allowed = merged.setdefault(each.path, (each, []))
        message = str(each.error["msg"]).removeprefix("Input should be ")
        allowed += [message] if message not in allowed else []
    return [
        Located(first.steps, {**first.error, "msg": f"Input should be {' or '.join(allowed)}"})
        for first, allowed in merged.values()
    ]
