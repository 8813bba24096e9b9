"""Entries of ``steer`` at the residual stream: what they become, and what is refused where."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from logit_processors.checks import ControlError
from logit_processors.control import EVERYWHERE, Server, When
from logit_processors.controls.steer import SteerEntry
from service.api.validation import from_validation
from service.errors import NotFoundError, RequestError
from service.planning.programs import build_program
from service.schemas.control import LogitControl
from tests.entries import entries_of, span, steer_residual

CONTENTS = {"calm": "c0", "formal": "f0", "direction": "d0"}
LAYERS: dict[str, list[int]] = {"c0": [10, 20], "f0": [3], "d0": []}


def content_of(name: str) -> str:
    if name not in CONTENTS:
        raise NotFoundError(f"no vector {name}", "vector")
    return CONTENTS[name]


def build(*steer: dict[str, Any], unsupported: str | None = None) -> tuple[SteerEntry, ...]:
    filled = [{"strength": 1.0, "at": "residual", **entry} for entry in steer]
    control = LogitControl.model_validate({"steer": filled})
    server = Server(100, lambda _: [], content_of, content_of, LAYERS.__getitem__, unsupported)
    program = build_program(control, None, server)
    return tuple(entries_of(program, "steer_residual"))


def test_nothing_comes_of_nothing() -> None:
    assert build() == ()
    assert build({"vector": "calm", "at": "logits"}, unsupported="why") == ()


def test_entries_in_their_order() -> None:
    built = build(
        {"vector": "calm", "strength": -2.0},
        {"vector": "calm", "at": "logits"},
        {"vector": "calm", "layers": [20]},
        {"vector": "formal", "strength": 10_000.0, "when": {"until": 3}},
    )
    assert built == (
        steer_residual("c0", -2.0),
        steer_residual("c0", 1.0, (20,)),
        steer_residual("f0", 10_000.0, when=span(0, 3)),
    )
    assert built[0].bounds == EVERYWHERE.bounds


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (None, EVERYWHERE),
        ({}, span(0)),
        ({"from": None}, EVERYWHERE),
        ({"from": None, "until": -3}, span(None, -3)),
        ({"from": -4, "until": 2}, span(-4, 2)),
    ],
)
def test_windows(when: Any, expected: When) -> None:
    assert build({"vector": "calm", "when": when})[0].bounds == expected.bounds


@pytest.mark.parametrize(
    ("entry", "param", "words"),
    [
        ({"vector": "other"}, "vector", ["other"]),
        ({"vector": "direction"}, "vector", ["direction", "logits"]),
        ({"vector": "calm", "layers": [10, 11]}, "layers", ["[11]", "[10, 20]"]),
        ({"vector": "calm", "layers": [10, 10]}, "layers", ["different"]),
        ({"vector": "calm", "when": {"from": 2, "until": 2}}, "when.until", ["2", "above"]),
        ({"vector": "calm", "when": {"from": 2**40}}, "when.from", ["position"]),
    ],
)
def test_what_cannot_be_is_named_at_its_path(
    entry: dict[str, Any], param: str, words: list[str]
) -> None:
    with pytest.raises((ControlError, RequestError, ValidationError)) as caught:
        build({"vector": "calm"}, {"vector": "calm", "at": "logits"}, entry)
    error: Any = caught.value
    if isinstance(error, ValidationError):
        placed = [{**e, "loc": ("logit_control", *e["loc"])} for e in error.errors()]
        error = from_validation(placed)
    assert error.param == f"logit_control.steer[2].{param}"
    assert all(word in error.message for word in words), error.message


@pytest.mark.parametrize(
    "entry",
    [
        {"layers": []},
        {"layers": [-1]},
        {"layers": [1.0]},
        {"layers": [True]},
        {"layers": 3},
        {"strength": 10_001.0},
        {"strength": float("nan")},
        {"at": "embedding"},
    ],
)
def test_what_the_schema_refuses(entry: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        build({"vector": "calm", **entry})


def test_sixteen_entries_and_no_more() -> None:
    assert len(build(*[{"vector": "calm"}] * 16)) == 16
    with pytest.raises(ControlError, match=r"logit_control\.steer: 17 .* 16"):
        build(*[{"vector": "calm"}] * 17)


def test_a_model_that_cannot_be_steered_there() -> None:
    with pytest.raises(ControlError, match=r"steer\[1\]\.at: .* for a reason; allowed: 'logits'"):
        build({"vector": "calm", "at": "logits"}, {"vector": "calm"}, unsupported="for a reason")
