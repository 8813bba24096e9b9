"""The contract of a control: the entries of requests, and their effect on logits.

Imports no torch: processes that only validate requests import it too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from logit_processors.checks import ControlError, require, shown

if TYPE_CHECKING:
    from logit_processors.patterns import Pattern
    from logit_processors.table import EngineFacts, Table

POSITIONS = 2**31
"""Positions lie between minus and plus this: they are int32 on the device."""


class Form(BaseModel):
    """A frozen model that refuses unknown fields and converts no types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class When(Form):
    """Positions of generated tokens, counted from 0."""

    from_: int | None = Field(
        0,
        alias="from",
        description="First position. Residual steering also takes negative ones, prompt tokens "
        "counted back from the last, which is position 0, and null: from the first token.",
    )
    until: int | None = Field(
        None, description="First position that is not covered; null means no end."
    )

    @model_validator(mode="after")
    def _covers_a_position(self) -> Self:
        for field, bound in (("from", self.from_), ("until", self.until)):
            require(
                bound is None or -POSITIONS < bound < POSITIONS,
                field,
                f"{shown(bound)} is not a position; allowed: null or an integer between "
                "-2^31 and 2^31",
            )
        if self.from_ is not None and self.until is not None:
            require(
                self.from_ < self.until,
                "until",
                f"{self.until} leaves no position; allowed: null or an integer above "
                f"when.from ({self.from_}), up to 2^31 - 1",
            )
        return self

    @property
    def bounds(self) -> tuple[int, int]:
        """The first position and the one behind the last, int32."""
        start = -POSITIONS if self.from_ is None else self.from_
        return start, POSITIONS - 1 if self.until is None else self.until


def between(start: int | None = 0, stop: int | None = None) -> When:
    """Return the window over positions ``[start, stop)``; None is no bound."""
    return When.model_validate({"from": start, "until": stop})


EVERYWHERE = between(None)
ALWAYS = between()
"""All generated tokens."""


class Entry(Form):
    """One entry of a control in a request."""

    @property
    def can_fail(self) -> bool:
        """True if the entry may leave a row no token, or may miss a vector or pattern."""
        return True

    @property
    def count(self) -> int:
        """Return the number of uses that metrics and audit log count."""
        return 1

    @property
    def forbidden_token(self) -> int | None:
        """The one token that the entry gives probability 0 wherever it applies, if it does."""
        return None

    @property
    def is_always(self) -> bool:
        """True if the entry applies to all generated tokens."""
        return True

    def covers(self, position: int) -> bool:
        """Say whether the entry applies at a position."""
        return True


class WindowedEntry(Entry):
    """An entry that applies to some of the positions."""

    when: When | None = Field(None, description="Where it applies; null means everywhere.")

    @property
    def bounds(self) -> tuple[int, int]:
        """The first position and the one behind the last, int32."""
        return (EVERYWHERE if self.when is None else self.when).bounds

    @property
    def is_always(self) -> bool:
        """True if the entry applies to all generated tokens."""
        return self.bounds[0] <= 0 and self.bounds[1] == POSITIONS - 1

    def covers(self, position: int) -> bool:
        """Say whether the entry applies at a position."""
        start, stop = self.bounds
        return start <= position < stop


def check_generated(when: When | None) -> None:
    """Refuse a window that begins before the first generated token."""
    start = 0 if when is None else when.from_
    require(start is not None, "when.from", "null is for residual steering; allowed: 0 and up")
    require(
        start is not None and start >= 0,
        "when.from",
        f"{shown(start)} is not a position; allowed: 0 to 2^31 - 1",
    )


class Phase(IntEnum):
    """The order in which controls act. The stage ``controlled`` is read after MASK."""

    MODEL = 0
    """Inside the model: no table of logits."""
    ADD = 1
    MASK = 2
    SHAPE = 3
    """Changes the sampling of a token; reported distributions do not show it."""
    FORCE = 4


E = TypeVar("E", bound=Entry)


@dataclass(frozen=True)
class Server:
    """Facts about the server that entries are checked against and resolved with."""

    vocab_size: int
    """Size of the vocabulary."""
    encode: Callable[[str], list[int]]
    """Return the token ids of a text, without special tokens."""
    scored_vector: Callable[[str], str]
    """Return the SHA-256 of a vector's content by its name, for steering logits."""
    vector: Callable[[str], str]
    """Return the SHA-256 for steering the residual stream."""
    layers_of: Callable[[str], Collection[int]]
    """Return the layers of a content; none for a direction of the unembedding."""
    unsupported: str | None = None
    """The reason why the model's residual stream cannot be steered; None if it can."""

    def check_token(self, token_id: int | None, param: str) -> None:
        """Refuse a token that the vocabulary does not have."""
        require(
            token_id is None or token_id < self.vocab_size,
            param,
            f"{shown(token_id)} is no token; allowed: 0 to {self.vocab_size - 1}",
        )


class Control(ABC, Generic[E]):
    """One kind of control.

    A subclass in a module of ``logit_processors.controls``, or behind an entry point of the group
    ``sensefield.controls``, is a field of ``logit_control``.
    """

    name: ClassVar[str]
    """Key in programs, and label in metrics and audit log."""
    field: ClassVar[str] = ""
    """Key in ``logit_control``, by default the name; kinds may share it."""
    entry: ClassVar[type[Entry]]
    phase: ClassVar[Phase]
    order: ClassVar[int] = 0
    """Order among the controls of a phase."""
    single: ClassVar[bool] = False
    """One object in the field instead of a list."""
    draws: ClassVar[bool] = False
    """True if the control draws random numbers: its requests have a seed."""
    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ()
    """Entries as JSON objects, for tests and documentation."""
    neutral: ClassVar[tuple[Mapping[str, Any], ...]] = ()
    """Entries without an effect, likewise."""
    description: ClassVar[str] = ""
    """Description of the field, by default the first line of the entry's docstring."""

    def takes(self, entry: Any) -> bool:
        """Say whether an entry of the field is of this kind."""
        return True

    def resolve(self, entry: E, server: Server) -> E:
        """Return the entry for the workers: vectors by content, texts as tokens.

        Raises:
            ControlError: the server does not have the token or vector that the entry names.

        """
        return entry

    def check(self, entries: Sequence[E], others: Mapping[str, Sequence[Entry]]) -> None:
        """Refuse entries that exclude one another.

        Args:
            entries: the entries of this kind.
            others: the whole program, by kind.

        Raises:
            ControlError: ``param`` is the field below ``logit_control``.

        """

    def admit(self, entries: Sequence[E], server: Server) -> None:
        """Refuse entries that this server cannot apply; raise the errors of :meth:`check`."""

    def patterns(self, entry: E) -> Sequence[Pattern]:
        """Return the text patterns that the entry needs compiled."""
        return ()

    def vectors(self, entry: E) -> Sequence[str]:
        """Return the names of the entry's vectors; once resolved, the SHA-256 of their contents."""
        return ()

    def texts(self, entry: E) -> Sequence[str]:
        """Return the texts that :meth:`resolve` encodes."""
        return ()

    @abstractmethod
    def table(self, engine: EngineFacts) -> Table[E]:
        """Return the control's table for the requests of an engine."""


__all__ = [
    "ALWAYS",
    "EVERYWHERE",
    "Control",
    "ControlError",
    "Entry",
    "Form",
    "Phase",
    "Server",
    "When",
    "WindowedEntry",
    "between",
    "check_generated",
]
