"""The control program: the entries of one request, by kind of control."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError

from logit_processors.checks import ControlError, require
from logit_processors.control import Control, Entry, Phase
from logit_processors.patterns import Pattern
from logit_processors.registry import by_name, controls, field_of
from logit_processors.wire import MAX_ENTRIES

MAX_PATTERNS = 64
"""Text patterns in one program."""

Entries = Mapping[str, tuple[Entry, ...]]


@dataclass(frozen=True)
class Program:
    """The entries of one request by kind, in the order in which kinds act.

    Kinds that the request does not use are absent.
    """

    entries: Entries

    @classmethod
    def of(cls, entries: Mapping[str, Sequence[Entry]]) -> Self:
        """Return the program of some entries, checked together.

        Raises:
            ControlError: there are too many, or they exclude one another.

        """
        used = {
            control.name: tuple(entries[control.name])
            for control in controls()
            if entries.get(control.name)
        }
        count = sum(map(len, used.values()))
        require(
            count <= MAX_ENTRIES,
            "",
            f"{count} entries are too many; allowed: {MAX_ENTRIES} in one request",
        )
        program = cls(used)
        patterns = sum(1 for _ in program._each_pattern())
        require(
            patterns <= MAX_PATTERNS,
            "",
            f"{patterns} text patterns are too many; allowed: {MAX_PATTERNS} in one request",
        )
        for control, own in program.used():
            control.check(own, used)
        return program

    @classmethod
    def from_wire(cls, wire: object) -> Self:
        """Build a program from :meth:`to_wire`.

        Raises:
            ControlError: a part is unknown, missing or out of range.

        """
        if not isinstance(wire, Mapping):
            raise ControlError("", f"a control program is an object, not {type(wire).__name__}")
        allowed = by_name()
        for name in wire:
            require(name in allowed, str(name), f"unknown; allowed: {', '.join(allowed)}")
        return cls.of({name: _validated(allowed[name], listed) for name, listed in wire.items()})

    def to_wire(self) -> dict[str, Any]:
        """Return the program as lists and dicts that msgpack carries."""
        return {
            name: _adapter(by_name()[name]).dump_python(
                list(entries), by_alias=True, exclude_defaults=True
            )
            for name, entries in self.entries.items()
        }

    def used(self) -> Iterable[tuple[Control[Any], tuple[Entry, ...]]]:
        """Yield the kinds that the request uses, with their entries."""
        return ((by_name()[name], entries) for name, entries in self.entries.items())

    def field_at(self, *phases: Phase) -> str | None:
        """Return the first field of ``logit_control`` in use whose kind acts in these phases."""
        return next(
            (field_of(control) for control, _ in self.used() if control.phase in phases), None
        )

    @cached_property
    def at_logits(self) -> bool:
        """True if the program changes logits."""
        return any(control.phase is not Phase.MODEL for control, _ in self.used())

    @cached_property
    def draws(self) -> bool:
        """True if one of its controls draws random numbers."""
        return any(control.draws for control, _ in self.used())

    @cached_property
    def can_fail(self) -> bool:
        """True if the program may leave a row no token, or may miss a vector or pattern."""
        return any(entry.can_fail for entries in self.entries.values() for entry in entries)

    @cached_property
    def patterns(self) -> tuple[Pattern, ...]:
        """The text patterns that its entries need, each once."""
        return tuple(dict.fromkeys(self._each_pattern()))

    @property
    def never(self) -> set[int]:
        """The tokens that have probability 0 at every position."""
        return {
            entry.forbidden_token
            for entries in self.entries.values()
            for entry in entries
            if entry.forbidden_token is not None and entry.is_always
        }

    @property
    def pattern_bytes(self) -> int:
        """The bytes of its text patterns, one state of an automaton each."""
        return sum(map(len, self._each_pattern()))

    def vectors(self, *phases: Phase) -> set[str]:
        """Return the SHA-256 of the vectors that kinds of these phases need."""
        return {
            vector
            for control, entries in self.used()
            if control.phase in phases
            for entry in entries
            for vector in control.vectors(entry)
        }

    def _each_pattern(self) -> Iterable[Pattern]:
        return (
            pattern
            for control, entries in self.used()
            for entry in entries
            for pattern in control.patterns(entry)
        )


NO_PROGRAM = Program({})


@cache
def _adapter(control: Control[Any]) -> TypeAdapter[list[Any]]:
    form: Any = control.entry
    return TypeAdapter(list[form])


def _validated(control: Control[Any], wire: object) -> list[Any]:
    try:
        entries = _adapter(control).validate_python(wire)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        at = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        cause = (first.get("ctx") or {}).get("error")
        if isinstance(cause, ControlError):
            raise cause.under(f"{control.name}{at}") from None
        raise ControlError(f"{control.name}{at}", first["msg"]) from None
    for number, entry in enumerate(entries):
        require(control.takes(entry), f"{control.name}[{number}]", "is an entry of another kind")
    return entries
