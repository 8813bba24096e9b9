"""The control program: what one request asks to be done to its logits.

Import-light (no torch): the API process validates programs, the worker runs them. A
program crosses between the two as plain lists and dicts (:meth:`Program.to_wire`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

MAX_ADD = 100.0
"""Largest absolute bias, in nats: OpenAI's bound on ``logit_bias``."""
MAX_STRENGTH = 1000.0
"""Largest absolute steering strength, in standard deviations of logits."""
MAX_ENTRIES = 1024
"""Entries in one program, all kinds together."""
MAX_PATTERNS = 64
"""Text patterns in one program."""
MAX_PATTERN_BYTES = 256
"""UTF-8 length of one text pattern."""
MAX_FORCED = 16_384
"""Tokens that one program may force."""

_SHOWN = 100
_POSITIONS = 2**31

WIRE_KEY = "sensefield"
"""Where a program travels in vLLM's ``SamplingParams.extra_args``."""


class ControlError(ValueError):
    """A program that cannot be: ``param`` names the field, the message says what is allowed."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(f"{param}: {message}")
        self.param = param
        self.message = message

    def under(self, prefix: str) -> ControlError:
        """Return the same error with its field placed below ``prefix``."""
        separator = "" if self.param.startswith("[") or not self.param else "."
        return ControlError(f"{prefix}{separator}{self.param}", self.message)


def require(condition: bool, param: str, message: str) -> None:
    """Raise a :class:`ControlError` unless ``condition`` holds."""
    if not condition:
        raise ControlError(param, message)


def shown(value: object) -> str:
    """Return a client's value short enough to be told back."""
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def is_int(value: object) -> bool:
    """Say whether a value is an integer; True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Window:
    """Positions of generated tokens, from 0: ``start`` included, ``stop`` excluded."""

    start: int = 0
    stop: int | None = None

    def __post_init__(self) -> None:
        require(
            is_int(self.start) and 0 <= self.start < _POSITIONS,
            "when.from",
            f"{shown(self.start)} is not a position; allowed: 0 to 2^31 - 1",
        )
        if self.stop is not None:
            require(
                is_int(self.stop) and self.start < self.stop < _POSITIONS,
                "when.until",
                f"{shown(self.stop)} leaves no position; allowed: null or an integer above "
                f"when.from ({self.start}), up to 2^31 - 1",
            )

    def covers(self, position: int) -> bool:
        """Say whether generated position ``position`` lies in the window."""
        return self.start <= position and (self.stop is None or position < self.stop)


ALWAYS = Window()


def _check_token_id(token_id: object) -> None:
    require(
        is_int(token_id) and 0 <= token_id < 2**31,  # type: ignore[operator]
        "token_id",
        f"{shown(token_id)} is not a token id; allowed: integers from 0",
    )


def check_number(value: object, param: str, bound: float, unit: str) -> None:
    """Refuse what is not a finite number of at most ``bound``."""
    require(
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) <= bound,  # neither NaN nor infinity is
        param,
        f"{shown(value)} is out of range; allowed: finite, from -{bound:g} to {bound:g} {unit}",
    )


def _check_pattern(text: object) -> None:
    require(isinstance(text, str) and text != "", "text", "a text pattern must not be empty")
    assert isinstance(text, str)
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ControlError("text", "a text pattern must not hold a lone surrogate") from None
    require(
        size <= MAX_PATTERN_BYTES,
        "text",
        f"a pattern of {size} bytes is too long; allowed: {MAX_PATTERN_BYTES} bytes of UTF-8",
    )
    require(
        "\ufffd" not in text,
        "text",
        "U+FFFD stands for bytes that are not text and cannot be matched",
    )


@dataclass(frozen=True, slots=True)
class TokenBias:
    """Add ``add`` nats to one token's logit."""

    token_id: int
    add: float
    when: Window = ALWAYS

    def __post_init__(self) -> None:
        _check_token_id(self.token_id)
        check_number(self.add, "add", MAX_ADD, "nats")


@dataclass(frozen=True, slots=True)
class TextBias:
    """Add ``add`` nats to every token that advances or completes ``text``."""

    text: str
    add: float
    ignore_case: bool = False
    when: Window = ALWAYS

    def __post_init__(self) -> None:
        _check_pattern(self.text)
        check_number(self.add, "add", MAX_ADD, "nats")


@dataclass(frozen=True, slots=True)
class TokenSuppress:
    """Give one token probability 0."""

    token_id: int
    when: Window = ALWAYS

    def __post_init__(self) -> None:
        _check_token_id(self.token_id)


@dataclass(frozen=True, slots=True)
class TextSuppress:
    """Give probability 0 to every token that would complete ``text``."""

    text: str
    ignore_case: bool = False
    when: Window = ALWAYS

    def __post_init__(self) -> None:
        _check_pattern(self.text)


@dataclass(frozen=True, slots=True)
class Steer:
    """Add ``strength`` standard deviations of a vector's token scores to the logits.

    ``vector`` is the SHA-256 of the vector's content, so that a running request keeps what
    it started with.
    """

    vector: str
    strength: float
    when: Window = ALWAYS

    def __post_init__(self) -> None:
        require(
            self.vector != "",
            "vector",
            f"{self.vector!r} is not the SHA-256 of a vector",
        )
        check_number(self.strength, "strength", MAX_STRENGTH, "standard deviations")


Entry = TokenBias | TextBias | Steer | TokenSuppress | TextSuppress

KINDS: dict[str, type[Entry]] = {
    "token_bias": TokenBias,
    "text_bias": TextBias,
    "steer": Steer,
    "token_suppress": TokenSuppress,
    "text_suppress": TextSuppress,
}
"""The groups of a program by name."""


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
                _check_token_id(token_id)
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
    def can_fail(self) -> bool:
        """Whether a row can run out of tokens, or of a vector or pattern, under this program."""
        masks = self.token_suppress or self.text_suppress or self.force
        return bool(masks or self.text_bias or self.steer)

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
