"""One request's steering and capture of the residual stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, field_validator

from logit_processors.checks import ControlError, require
from logit_processors.control import POSITIONS, Form, between
from logit_processors.controls.steer import MAX_LAYERS, SteerEntry, SteerResidual
from logit_processors.program import Program
from logit_processors.wire import WIRE_KEY

MAX_CAPTURED = 64
"""Prompt tokens that one request may have captured."""
CAPTURE_KEY = "capture"
"""Key of a request's capture, beside its program."""
_LAST = POSITIONS - 1


class Capture(Form):
    """Keep the residual stream of a prompt's ``last`` tokens under ``tag``.

    With ``each`` it is kept for each token, otherwise their mean. ``layers`` None is every layer.
    Tokens from the prefix cache do not pass the layers, so that the request needs a ``cache_salt``
    that no other request has, or under which those tokens are not cached yet.
    """

    tag: Annotated[str, Field(min_length=1, max_length=128)]
    last: Annotated[int, Field(ge=1, le=MAX_CAPTURED)] = 1
    layers: list[Annotated[int, Field(ge=0, lt=MAX_LAYERS)]] | None = Field(None, min_length=1)
    each: bool = False

    @field_validator("layers")
    @classmethod
    def _differ(cls, layers: list[int] | None) -> list[int] | None:
        if layers is not None and len(layers) != len(set(layers)):
            raise ValueError("allowed: null or different layers")
        return layers


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """One request's steering and capture."""

    steer: tuple[SteerEntry, ...] = ()
    capture: Capture | None = None

    @classmethod
    def of(cls, sampling_params: Any) -> Self:
        """Read a request's ``SamplingParams``.

        Raises:
            ControlError: ``extra_args`` hold bad steering or a bad capture.

        """
        wire = (sampling_params.extra_args or {}).get(WIRE_KEY) or {}
        require(
            isinstance(wire, Mapping),
            WIRE_KEY,
            f"an object is expected, not {type(wire).__name__}",
        )
        entries = (wire.get("program") or {}).get(SteerResidual.name)
        steer: Any = ()
        if entries:
            program = Program.from_wire({SteerResidual.name: entries})
            steer = program.entries[SteerResidual.name]
        capture = wire.get(CAPTURE_KEY)
        try:
            return cls(steer, Capture.model_validate(capture) if capture else None)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join([CAPTURE_KEY, *map(str, first["loc"])])
            raise ControlError(where, first["msg"]) from None


NOTHING = StreamRequest()


def moved(entry: SteerEntry, by: int) -> SteerEntry:
    """Return the entry for the same tokens after their positions have grown by ``by``.

    Bounds are clamped to int32: no text is so long.
    """
    if entry.when is None:
        return entry
    start, stop = entry.when.from_, entry.when.until
    if start is not None:
        start = min(max(start + by, 1 - POSITIONS), _LAST - 1)
    if stop is not None:
        stop = min(max(stop + by, 2 - POSITIONS), _LAST)
    return entry.model_copy(update={"when": between(start, stop)})
