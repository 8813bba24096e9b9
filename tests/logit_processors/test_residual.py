"""What a request asks of the residual stream: over the wire and back, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vllm import SamplingParams

from logit_processors.checks import ControlError
from logit_processors.control import When
from logit_processors.controls.steer import MAX_RESIDUAL_STRENGTH, SteerEntry
from logit_processors.program import Program
from logit_processors.residual import NOTHING, Capture, StreamRequest, moved
from tests.entries import capture_of, span, steer_residual

KIND = "steer_residual"

POSITIONS = st.integers(-(2**31) + 1, 2**31 - 1)
SPANS = st.one_of(
    st.builds(span, st.none() | POSITIONS),
    st.builds(span, st.none(), st.none() | POSITIONS),
    st.lists(POSITIONS, min_size=2, max_size=2, unique=True).map(lambda b: span(min(b), max(b))),
)
LAYERS = st.none() | st.sets(st.integers(0, 99), min_size=1).map(lambda s: tuple(sorted(s)))
STEERS = st.builds(
    steer_residual,
    st.text(min_size=1, max_size=9),
    st.floats(-MAX_RESIDUAL_STRENGTH, MAX_RESIDUAL_STRENGTH),
    LAYERS,
    SPANS,
)
CAPTURES = st.builds(
    capture_of, st.text(min_size=1, max_size=9), st.integers(1, 64), LAYERS, st.booleans()
)


def asked(**wire: Any) -> StreamRequest:
    """Read a request whose ``extra_args`` hold ``wire``."""
    return StreamRequest.of(SamplingParams(extra_args={"sensefield": wire}))


@given(st.lists(STEERS, max_size=16), st.none() | CAPTURES)
def test_the_wire_carries_everything(steer: list[SteerEntry], capture: Capture | None) -> None:
    wire = Program.of({KIND: steer}).to_wire()
    read = asked(program=wire, capture=None if capture is None else capture.model_dump())
    assert read == StreamRequest(tuple(steer), capture)


@pytest.mark.parametrize("extra", [None, {}, {"sensefield": None}, {"sensefield": {"rows": {}}}])
def test_other_requests_ask_nothing(extra: Any) -> None:
    assert StreamRequest.of(SamplingParams(extra_args=extra)) == NOTHING


ENTRY = {"vector": "a", "strength": 1.0, "at": "residual"}


@pytest.mark.parametrize(
    ("capture", "param"),
    [
        ("tag", "capture"),
        ({"last": 1}, "capture.tag"),
        ({"tag": ""}, "capture.tag"),
        ({"tag": "x" * 129}, "capture.tag"),
        ({"tag": "x", "last": 0}, "capture.last"),
        ({"tag": "x", "last": 65}, "capture.last"),
        ({"tag": "x", "layers": ["one"]}, "capture.layers.0"),
        ({"tag": "x", "layers": [1, 1]}, "capture.layers"),
        ({"tag": "x", "each": 1}, "capture.each"),
    ],
)
def test_a_capture_that_cannot_be_names_its_field(capture: Any, param: str) -> None:
    with pytest.raises(ControlError) as caught:
        asked(capture=capture)
    assert caught.value.param == param


def test_entries_have_a_number() -> None:
    assert len(asked(program={KIND: [ENTRY] * 16}).steer) == 16
    with pytest.raises(ControlError, match="17 entries at 'residual' are too many"):
        asked(program={KIND: [ENTRY] * 17})
    with pytest.raises(ControlError, match="an object is expected"):
        StreamRequest.of(SamplingParams(extra_args={"sensefield": [1]}))


@given(st.none() | st.integers(-9, 9), st.integers(1, 9), st.integers(-20, 20))
def test_a_moved_entry_steers_the_same_tokens(start: int | None, length: int, by: int) -> None:
    stop = None if start is None else start + length
    entry = steer_residual("a", 1.0, when=span(start, stop))
    low, high = entry.bounds
    assert moved(entry, by).bounds == ((low, high) if start is None else (low + by, high + by))


def test_an_entry_without_a_window_is_moved_nowhere() -> None:
    assert moved(steer_residual("a", 1.0), 5) == steer_residual("a", 1.0)


@pytest.mark.parametrize(
    ("when", "by", "bounds"),
    [
        (span(0, 2**31 - 1), 5, (5, 2**31 - 1)),
        (span(2**31 - 2, 2**31 - 1), 7, (2**31 - 2, 2**31 - 1)),
        (span(1 - 2**31, 3), -9, (1 - 2**31, -6)),
        (span(1 - 2**31, 2 - 2**31), -9, (1 - 2**31, 2 - 2**31)),
    ],
)
def test_a_window_stays_within_int32_when_it_is_moved(
    when: When, by: int, bounds: tuple[int, int]
) -> None:
    assert moved(steer_residual("a", 1.0, when=when), by).bounds == bounds
