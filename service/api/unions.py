"""Errors of a value that may be of several kinds: those of the kind that it was meant to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_NAMED_KIND = ("literal_error", "enum")
"""Errors of a field such as ``role`` or ``type``, which names the kind."""


@dataclass(frozen=True)
class Located:
    """One of pydantic's errors.

    Args:
        steps: parts of its location, and whether each is of the body, or names a kind.
        error: pydantic's.

    """

    steps: tuple[tuple[str | int, bool], ...]
    error: Mapping[str, Any]

    @property
    def path(self) -> tuple[str | int, ...]:
        """Return the parts that are of the body."""
        return tuple(part for part, is_in in self.steps if is_in)


def meant(errors: Sequence[Located], start: int = 0) -> list[Located]:
    """Return the errors that a client can act on; pydantic tells those of each kind in turn.

    Args:
        errors: all of one value.
        start: steps that they share.

    """
    told: list[Located] = []
    unions: dict[tuple[Any, ...], dict[str | int, list[Located]]] = {}
    for each in errors:
        at = _kind_at(each, start)
        if at is None:
            told.append(each)
        else:
            kinds = unions.setdefault(each.steps[:at], {})
            kinds.setdefault(each.steps[at][0], []).append(each)
    for shared, kinds in unions.items():
        depth = len(shared)
        chosen = [meant(of_kind, depth + 1) for of_kind in kinds.values()]
        apart = [each for of_kind in chosen for each in _apart(of_kind)]
        told += _likeliest(apart, sum(is_in for _, is_in in shared))
    return told


def _apart(errors: Sequence[Located]) -> list[list[Located]]:
    """Return the errors of several kinds of one name, which tell of the same place in turn."""
    kinds: list[list[Located]] = [[]]
    for each in errors:
        if any(each.path == other.path for other in kinds[-1]):
            kinds.append([])
        kinds[-1].append(each)
    return kinds


def _kind_at(error: Located, start: int) -> int | None:
    """Return where the next name of a kind stands."""
    later = range(start, len(error.steps))
    return next((at for at in later if not error.steps[at][1]), None)


def _likeliest(kinds: list[list[Located]], depth: int) -> list[Located]:
    """Return the errors of the kinds that a value was meant to be.

    Args:
        kinds: the errors of each.
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
    """Return the kinds without an error of a sort, or all if each has one."""
    return [kind for kind in kinds if not any(map(is_wrong, kind))] or kinds


def _is_type(each: Located) -> bool:
    return str(each.error["type"]).endswith("_type")


def _names_kind(each: Located, depth: int) -> bool:
    return each.error["type"] in _NAMED_KIND and len(each.path) == depth + 1


def _merged(errors: list[Located]) -> list[Located]:
    """Return one error for each field, with all that is allowed there."""
    merged: dict[tuple[str | int, ...], tuple[Located, list[str]]] = {}
    for each in errors:
        _, allowed = merged.setdefault(each.path, (each, []))
        told = str(each.error["msg"]).removeprefix("Input should be ")
        allowed += [told] if told not in allowed else []
    return [
        Located(first.steps, {**first.error, "msg": f"Input should be {' or '.join(allowed)}"})
        for first, allowed in merged.values()
    ]
