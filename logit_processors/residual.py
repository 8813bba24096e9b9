"""What one request asks of the residual stream: to steer it, to take a copy of it.

Import-light (no torch), like ``controls``: the API process validates, the worker obeys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from logit_processors.checks import ControlError, check_number, is_int, require, shown
from logit_processors.program import WIRE_KEY

MAX_RESIDUAL_STRENGTH = 10_000.0
"""Largest absolute strength, in multiples of the vector."""
MAX_RESIDUAL_ENTRIES = 16
"""Steering entries of one request."""
MAX_CAPTURED = 64
"""Prompt tokens that one request may have captured."""

_POSITIONS = 2**31
_LAST = _POSITIONS - 1
_LAYERS = 4096
_TAG = 128


@dataclass(frozen=True, slots=True)
class Span:
    """Generated positions ``[start, stop)``; None is no bound.

    The last prompt token chooses the first generated token and so has position 0, as in
    logit control; earlier prompt tokens have negative positions.
    """

    start: int | None = None
    stop: int | None = None

    def __post_init__(self) -> None:
        for param, bound in (("when.from", self.start), ("when.until", self.stop)):
            require(
                bound is None or (is_int(bound) and -_POSITIONS < bound < _POSITIONS),
                param,
                f"{shown(bound)} is not a position; allowed: null or an integer between "
                "-2^31 and 2^31",
            )
        if self.start is not None and self.stop is not None:
            require(
                self.start < self.stop,
                "when.until",
                f"{self.stop} leaves no position; allowed: null or above when.from ({self.start})",
            )

    def moved(self, by: int) -> Span:
        """Return the span that covers the same tokens counted from ``by`` tokens earlier.

        A bound that would leave int32 stays at its end: no text is as long.
        """
        start = None if self.start is None else min(max(self.start + by, 1 - _POSITIONS), _LAST - 1)
        stop = None if self.stop is None else min(max(self.stop + by, 2 - _POSITIONS), _LAST)
        return Span(start, stop)

    @property
    def bounds(self) -> tuple[int, int]:
        """The span with int32 numbers for what has no bound."""
        start = -_POSITIONS if self.start is None else self.start
        return start, _POSITIONS - 1 if self.stop is None else self.stop


EVERYWHERE = Span()


@dataclass(frozen=True, slots=True)
class ResidualSteer:
    """After each of ``layers``, h += ``strength`` · v of that layer, on the tokens of ``when``.

    ``vector`` is the SHA-256 of the vector's content; ``layers`` None is every layer that
    it carries. Nothing is rescaled: the convention of CAA, repeng and llama.cpp.
    """

    vector: str
    strength: float
    layers: tuple[int, ...] | None = None
    when: Span = EVERYWHERE

    def __post_init__(self) -> None:
        require(
            isinstance(self.vector, str) and self.vector != "",  # type: ignore[redundant-expr]
            "vector",
            f"{shown(self.vector)} is not the SHA-256 of a vector",
        )
        check_number(self.strength, "strength", MAX_RESIDUAL_STRENGTH, "times the vector")
        _check_layers(self.layers)

    def to_wire(self) -> dict[str, Any]:
        """Return the entry as a dict that msgpack carries."""
        wire: dict[str, Any] = {"vector": self.vector, "strength": self.strength}
        wire["layers"] = None if self.layers is None else list(self.layers)
        if self.when != EVERYWHERE:
            wire["when"] = [self.when.start, self.when.stop]
        return wire

    @classmethod
    def from_wire(cls, wire: object) -> Self:
        """Build the entry that :meth:`to_wire` described; ControlError if it is not one."""
        fields = _fields(wire)
        if "when" in fields:
            bounds = fields["when"]
            require(
                isinstance(bounds, list | tuple) and len(bounds) == 2,
                "when",
                f"{shown(bounds)} is not a window; allowed: [from, until]",
            )
            fields["when"] = Span(*bounds)
        return _build(cls, fields)


@dataclass(frozen=True, slots=True)
class Capture:
    """Keep the residual stream of a prompt's ``last`` tokens under ``tag``.

    Their mean, or that of ``each``. ``layers`` None is every layer. Tokens that come out of
    the prefix cache never pass the layers, so the request needs a ``cache_salt`` that no other
    request has, or under which those tokens are not cached yet.
    """

    tag: str
    last: int = 1
    layers: tuple[int, ...] | None = None
    each: bool = False

    def __post_init__(self) -> None:
        require(
            isinstance(self.tag, str)  # type: ignore[redundant-expr]
            and 0 < len(self.tag) <= _TAG,
            "tag",
            f"{shown(self.tag)} is not a tag; allowed: 1 to {_TAG} characters",
        )
        require(
            is_int(self.last) and 0 < self.last <= MAX_CAPTURED,
            "last",
            f"{shown(self.last)} is out of range; allowed: 1 to {MAX_CAPTURED} prompt tokens",
        )
        _check_layers(self.layers)
        require(
            isinstance(self.each, bool),
            "each",
            f"{shown(self.each)} is neither true nor false",
        )

    def to_wire(self) -> dict[str, Any]:
        """Return the capture as a dict that msgpack carries."""
        layers = None if self.layers is None else list(self.layers)
        return {"tag": self.tag, "last": self.last, "layers": layers, "each": self.each}

    @classmethod
    def from_wire(cls, wire: object) -> Self:
        """Build the capture that :meth:`to_wire` described; ControlError if it is not one."""
        return _build(cls, _fields(wire))


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """Everything that one request asks of the residual stream."""

    steer: tuple[ResidualSteer, ...] = ()
    capture: Capture | None = None

    @classmethod
    def of(cls, sampling_params: Any) -> Self:
        """Read a request's ``SamplingParams``.

        Raises:
            ControlError: ``extra_args`` ask for what cannot be.

        """
        wire = (sampling_params.extra_args or {}).get(WIRE_KEY) or {}
        require(
            isinstance(wire, Mapping),
            WIRE_KEY,
            f"an object is expected, not {type(wire).__name__}",
        )
        entries, capture = wire.get("residual") or (), wire.get("capture")
        require(
            isinstance(entries, list | tuple),
            "residual",
            f"a list of entries is expected, not {type(entries).__name__}",
        )
        require(
            len(entries) <= MAX_RESIDUAL_ENTRIES,
            "residual",
            f"{len(entries)} entries are too many; allowed: {MAX_RESIDUAL_ENTRIES} in one request",
        )
        steer = []
        for index, entry in enumerate(entries):
            try:
                steer.append(ResidualSteer.from_wire(entry))
            except ControlError as error:
                raise error.under(f"residual[{index}]") from None
        try:
            return cls(tuple(steer), Capture.from_wire(capture) if capture else None)
        except ControlError as error:
            raise error.under("capture") from None


NOTHING = StreamRequest()


def _check_layers(layers: object) -> None:
    if layers is None:
        return
    require(
        isinstance(layers, tuple)
        and all(is_int(layer) and 0 <= layer < _LAYERS for layer in layers)
        and 0 < len(layers) == len(set(layers)),
        "layers",
        f"{shown(layers)} is not a list of layers; allowed: null or different integers from 0",
    )


def _fields(wire: object) -> dict[str, Any]:
    require(isinstance(wire, Mapping), "", f"an object is expected, not {type(wire).__name__}")
    fields = dict(wire)  # type: ignore[call-overload]
    layers = fields.get("layers")
    if isinstance(layers, list):
        fields["layers"] = tuple(layers)
    return fields


def _build(kind: Any, fields: dict[str, Any]) -> Any:
    try:
        return kind(**fields)
    except ControlError:
        raise
    except TypeError as error:
        raise ControlError("", str(error)) from None
