"""What a request asks of the residual stream: over the wire and back, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vllm import SamplingParams

from logit_processors.checks import ControlError
from logit_processors.residual import (
    MAX_RESIDUAL_STRENGTH,
    NOTHING,
    Capture,
    ResidualSteer,
    Span,
    StreamRequest,
)

POSITIONS = st.integers(-(2**31) + 1, 2**31 - 1)
SPANS = st.one_of(
    st.builds(Span, st.none() | POSITIONS),
    st.builds(Span, st.none(), st.none() | POSITIONS),
    st.lists(POSITIONS, min_size=2, max_size=2, unique=True).map(lambda b: Span(min(b), max(b))),
)
LAYERS = st.none() | st.sets(st.integers(0, 99), min_size=1).map(lambda s: tuple(sorted(s)))
STEERS = st.builds(
    ResidualSteer,
    st.text(min_size=1, max_size=9),
    st.floats(-MAX_RESIDUAL_STRENGTH, MAX_RESIDUAL_STRENGTH),
    LAYERS,
    SPANS,
)
CAPTURES = st.builds(
    Capture, st.text(min_size=1, max_size=9), st.integers(1, 64), LAYERS, st.booleans()
)


def asked(**wire: Any) -> StreamRequest:
    """Read a request whose ``extra_args`` hold ``wire``."""
    return StreamRequest.of(SamplingParams(extra_args={"sensefield": wire}))


@given(st.lists(STEERS, max_size=16), st.none() | CAPTURES)
def test_the_wire_carries_everything(steer: list[ResidualSteer], capture: Capture | None) -> None:
    read = asked(
        residual=[entry.to_wire() for entry in steer],
        capture=None if capture is None else capture.to_wire(),
    )
    assert read == StreamRequest(tuple(steer), capture)


@pytest.mark.parametrize("extra", [None, {}, {"sensefield": None}, {"sensefield": {"rows": {}}}])
def test_other_requests_ask_nothing(extra: Any) -> None:
    assert StreamRequest.of(SamplingParams(extra_args=extra)) == NOTHING


def test_bounds_are_int32() -> None:
    assert Span().bounds == (-(2**31), 2**31 - 1)
    assert Span(-3, 4).bounds == (-3, 4)


ENTRY = {"vector": "a", "strength": 1.0}


@pytest.mark.parametrize(
    ("entry", "param"),
    [
        (5, "residual[1]"),
        ({"vector": "a"}, "residual[1]"),
        ({**ENTRY, "colour": "red"}, "residual[1]"),
        ({**ENTRY, "vector": ""}, "residual[1].vector"),
        ({**ENTRY, "vector": 3}, "residual[1].vector"),
        ({**ENTRY, "strength": "1"}, "residual[1].strength"),
        ({**ENTRY, "strength": True}, "residual[1].strength"),
        ({**ENTRY, "strength": float("nan")}, "residual[1].strength"),
        ({**ENTRY, "strength": -1e5}, "residual[1].strength"),
        ({**ENTRY, "layers": []}, "residual[1].layers"),
        ({**ENTRY, "layers": [1, 1]}, "residual[1].layers"),
        ({**ENTRY, "layers": [-1]}, "residual[1].layers"),
        ({**ENTRY, "layers": [1.0]}, "residual[1].layers"),
        ({**ENTRY, "layers": [[1]]}, "residual[1].layers"),
        ({**ENTRY, "layers": 3}, "residual[1].layers"),
        ({**ENTRY, "when": None}, "residual[1].when"),
        ({**ENTRY, "when": [1]}, "residual[1].when"),
        ({**ENTRY, "when": [1.5, None]}, "residual[1].when.from"),
        ({**ENTRY, "when": [None, 2**31]}, "residual[1].when.until"),
        ({**ENTRY, "when": [3, 3]}, "residual[1].when.until"),
    ],
)
def test_an_entry_that_cannot_be_names_its_field(entry: Any, param: str) -> None:
    with pytest.raises(ControlError) as caught:
        asked(residual=[ENTRY, entry])
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("capture", "param"),
    [
        ("tag", "capture"),
        ({"last": 1}, "capture"),
        ({"tag": ""}, "capture.tag"),
        ({"tag": "x" * 129}, "capture.tag"),
        ({"tag": "x", "last": 0}, "capture.last"),
        ({"tag": "x", "last": 65}, "capture.last"),
        ({"tag": "x", "layers": ["one"]}, "capture.layers"),
        ({"tag": "x", "each": 1}, "capture.each"),
    ],
)
def test_a_capture_that_cannot_be_names_its_field(capture: Any, param: str) -> None:
    with pytest.raises(ControlError) as caught:
        asked(capture=capture)
    assert caught.value.param == param


def test_entries_have_a_number() -> None:
    assert len(asked(residual=[ENTRY] * 16).steer) == 16
    with pytest.raises(ControlError, match="17 entries are too many"):
        asked(residual=[ENTRY] * 17)
    with pytest.raises(ControlError, match="a list of entries is expected"):
        asked(residual=ENTRY)
    with pytest.raises(ControlError, match="an object is expected"):
        StreamRequest.of(SamplingParams(extra_args={"sensefield": [1]}))


@given(st.none() | st.integers(-9, 9), st.integers(1, 9), st.integers(-20, 20))
def test_a_moved_span_covers_the_same_tokens(start: int | None, length: int, by: int) -> None:
    span = Span(start, None if start is None else start + length)
    low, high = span.bounds
    moved_low, moved_high = span.moved(by).bounds
    assert (moved_low, moved_high) == ((low, high) if start is None else (low + by, high + by))


@pytest.mark.parametrize(
    ("span", "by", "bounds"),
    [
        (Span(0, 2**31 - 1), 5, (5, 2**31 - 1)),
        (Span(2**31 - 2, 2**31 - 1), 7, (2**31 - 2, 2**31 - 1)),
        (Span(1 - 2**31, 3), -9, (1 - 2**31, -6)),
        (Span(1 - 2**31, 2 - 2**31), -9, (1 - 2**31, 2 - 2**31)),
    ],
)
def test_a_span_stays_within_int32_when_it_is_moved(
    span: Span, by: int, bounds: tuple[int, int]
) -> None:
    assert span.moved(by).bounds == bounds
