"""The kinds of control: what each asks of the logits, and where in the text.

Import-light (no torch): the API process validates them, the worker runs them.
"""

from __future__ import annotations

from dataclasses import dataclass

from logit_processors.checks import ControlError, check_number, is_int, require, shown

MAX_ADD = 100.0
"""Largest absolute bias, in nats: OpenAI's bound on ``logit_bias``."""
MAX_STRENGTH = 1000.0
"""Largest absolute steering strength, in standard deviations of logits."""
MAX_PATTERN_BYTES = 256
"""UTF-8 length of one text pattern."""

_POSITIONS = 2**31


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


def check_token_id(token_id: object) -> None:
    """Refuse what cannot be a token id of any model."""
    require(
        is_int(token_id) and 0 <= token_id < 2**31,  # type: ignore[operator]
        "token_id",
        f"{shown(token_id)} is not a token id; allowed: integers from 0",
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
        check_token_id(self.token_id)
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
        check_token_id(self.token_id)


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
