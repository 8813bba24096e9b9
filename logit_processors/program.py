"""The control program: what one request asks to be done to its logits.

Import-light (no torch): the API process validates programs, the worker runs them. A
program crosses between the two as plain lists and dicts (:meth:`Program.to_wire`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from logit_processors.checks import ControlError, require
from logit_processors.controls import (
    ALWAYS,
    KINDS,
    Entry,
    Steer,
    TextBias,
    TextSuppress,
    TokenBias,
    TokenSuppress,
    Window,
    check_token_id,
)

MAX_ENTRIES = 1024
"""Entries in one program, all kinds together."""
MAX_PATTERNS = 64
"""Text patterns in one program."""
MAX_FORCED = 16_384
"""Tokens that one program may force."""
WIRE_KEY = "sensefield"
"""Where a program travels in vLLM's ``SamplingParams.extra_args``."""
PATTERNS_KEY = "patterns"
"""Where its compiled text patterns travel, beside it."""


@dataclass(frozen=True, slots=True)
class Program:
    """Everything one request asks of its logits, applied as bias, steer, suppress.

    ``force`` are the tokens that the text begins with. Forcing says which token is drawn and
    leaves the distribution that it is drawn from as it is told; it revives no token.
    """

    token_bias: tuple[TokenBias, ...] = ()
    text_bias: tuple[TextBias, ...] = ()
    steer: tuple[Steer, ...] = ()
    token_suppress: tuple[TokenSuppress, ...] = ()
    text_suppress: tuple[TextSuppress, ...] = ()
    force: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self._check_force()
        entries = sum(len(getattr(self, group)) for group in KINDS)
        require(
            entries <= MAX_ENTRIES,
            "",
            f"{entries} entries are too many; allowed: {MAX_ENTRIES} in one request",
        )
        patterns = len(self.text_bias) + len(self.text_suppress)
        require(
            patterns <= MAX_PATTERNS,
            "",
            f"{patterns} text patterns are too many; allowed: {MAX_PATTERNS} in one request",
        )

    def _check_force(self) -> None:
        require(
            len(self.force) <= MAX_FORCED,
            "force",
            f"{len(self.force)} tokens are too many; allowed: {MAX_FORCED}",
        )
        for at, token_id in enumerate(self.force):
            try:
                check_token_id(token_id)
            except ControlError as error:
                raise ControlError(f"force[{at}]", error.message) from None
        suppressed: dict[int, list[Window]] = {}
        for entry in self.token_suppress:
            suppressed.setdefault(entry.token_id, []).append(entry.when)
        for at, token_id in enumerate(self.force):
            require(
                not any(when.covers(at) for when in suppressed.get(token_id, ())),
                "force",
                f"token {token_id} is suppressed at position {at}, where it is forced",
            )

    @property
    def suppresses(self) -> bool:
        """Say whether the program gives some tokens probability 0."""
        return bool(self.token_suppress or self.text_suppress)

    @property
    def can_fail(self) -> bool:
        """Whether a row can run out of tokens, or of a vector or pattern, under this program."""
        return self.suppresses or bool(self.force or self.text_bias or self.steer)

    @property
    def pattern_bytes(self) -> int:
        """Return the bytes of its text patterns, one state of an automaton each."""
        texts = [entry.text for entry in self.text_bias]
        texts += [entry.text for entry in self.text_suppress]
        return sum(len(text.encode()) for text in texts)

    def to_wire(self) -> dict[str, Any]:
        """Return the program as lists and dicts that msgpack carries."""
        wire: dict[str, Any] = {
            group: [_entry_to_wire(entry) for entry in getattr(self, group)]
            for group in KINDS
            if getattr(self, group)
        }
        return wire | {"force": list(self.force)} if self.force else wire

    @classmethod
    def from_wire(cls, wire: object) -> Self:
        """Build a program from what :meth:`to_wire` made.

        Raises:
            ControlError: anything unknown, missing or out of range.

        """
        if not isinstance(wire, Mapping):
            raise ControlError("", f"a control program is an object, not {type(wire).__name__}")
        entries = dict(wire)
        force = entries.pop("force", ())
        for group in entries:
            require(group in KINDS, str(group), f"unknown; allowed: {', '.join(KINDS)}, force")
        if not isinstance(force, list | tuple):
            raise ControlError("force", f"a list of tokens is expected, not {type(force).__name__}")
        groups = {group: _entries_from_wire(group, entries[group]) for group in entries}
        return cls(**groups, force=tuple(force))


def _entry_to_wire(entry: Entry) -> dict[str, Any]:
    fields = asdict(entry)
    del fields["when"]
    if entry.when != ALWAYS:
        fields["when"] = [entry.when.start, entry.when.stop]
    return fields


def _entries_from_wire(group: str, wire: object) -> tuple[Any, ...]:
    if not isinstance(wire, list | tuple):
        raise ControlError(group, f"a list of entries is expected, not {type(wire).__name__}")
    entries = []
    for index, fields in enumerate(wire):
        try:
            values = dict(fields)
            if "when" in values:
                values["when"] = Window(*values["when"])
            entries.append(KINDS[group](**values))
        except ControlError as error:
            raise error.under(f"{group}[{index}]") from None
        except (TypeError, ValueError) as error:
            raise ControlError(f"{group}[{index}]", str(error)) from None
    return tuple(entries)
