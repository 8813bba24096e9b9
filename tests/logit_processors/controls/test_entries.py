"""Entries of every kind: what they refuse between the processes, and how they say it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logit_processors.checks import ControlError
from logit_processors.control import between
from logit_processors.program import Program
from tests.entries import bias_text, bias_token, steer_logits, steer_residual

TOKEN, TEXT = {"token_id": 1, "add": 1.0}, {"text": "a", "add": 1.0}
STEER = {"vector": "ab", "strength": 1.0}
RESIDUAL = {**STEER, "at": "residual"}
BAD: list[tuple[str, dict[str, Any], str, str]] = [
    # the kind, a bad entry, the field that is named, words that the message must hold
    ("token_bias", {**TOKEN, "add": float("nan")}, ".add", "finite"),
    ("token_bias", {**TOKEN, "add": float("inf")}, ".add", "finite"),
    ("token_bias", {**TOKEN, "add": 101.0}, ".add", "100"),
    ("text_bias", {**TEXT, "add": -101.0}, ".add", "-100"),
    ("token_bias", {**TOKEN, "add": True}, ".add", "number"),
    ("token_bias", {**TOKEN, "add": 10**400}, ".add", ""),
    ("steer_logits", {**STEER, "strength": 1000.5}, ".strength", "-1000 to 1000"),
    ("steer_logits", {**STEER, "vector": ""}, ".vector", "1 character"),
    ("steer_logits", {**STEER, "layers": [1]}, "", "residual"),
    ("token_bias", {**TOKEN, "token_id": -1}, ".token_id", "0"),
    ("token_suppress", {"token_id": True}, ".token_id", "integer"),
    ("token_suppress", {"token_id": 2**31}, ".token_id", "2147483648"),
    ("text_bias", {**TEXT, "text": ""}, ".text", "empty"),
    ("text_suppress", {"text": "x" * 257}, ".text", "257 bytes"),
    ("text_suppress", {"text": "é" * 129}, ".text", "258 bytes"),
    ("text_suppress", {"text": "a\ud800"}, ".text", ""),
    ("text_suppress", {"text": "a\ufffd"}, ".text", "U+FFFD"),
    ("token_bias", {**TOKEN, "when": {"from": -1}}, ".when.from", "0 to 2^31 - 1"),
    ("token_bias", {**TOKEN, "when": {"from": None}}, ".when.from", "residual"),
    ("token_bias", {**TOKEN, "when": {"from": True}}, ".when.from", "integer"),
    ("token_bias", {**TOKEN, "when": {"from": 5, "until": 5}}, ".when.until", "when.from (5)"),
    ("token_bias", {**TOKEN, "when": {"from": 5, "until": 4}}, ".when.until", "when.from (5)"),
    ("token_bias", {**TOKEN, "when": {"until": 2**31}}, ".when.until", "2^31"),
    ("steer_residual", {**RESIDUAL, "strength": -1e5}, ".strength", "-10000"),
    ("steer_residual", {**RESIDUAL, "strength": "1"}, ".strength", "number"),
    ("steer_residual", {**RESIDUAL, "layers": []}, ".layers", "1 item"),
    ("steer_residual", {**RESIDUAL, "layers": [1, 1]}, ".layers", "different"),
    ("steer_residual", {**RESIDUAL, "layers": [-1]}, ".layers[0]", "0"),
    ("steer_residual", {**RESIDUAL, "layers": [1.0]}, ".layers[0]", "integer"),
    ("steer_residual", {**RESIDUAL, "when": {"from": 1.5}}, ".when.from", "integer"),
    ("steer_residual", {**RESIDUAL, "when": {"from": None, "until": 2**31}}, ".when.until", "2^31"),
    ("steer_residual", {**RESIDUAL, "when": {"from": 3, "until": 3}}, ".when.until", "(3)"),
    ("steer_residual", {**RESIDUAL, "colour": "red"}, ".colour", ""),
    ("steer_residual", STEER, "", "another kind"),
    ("token_bias", TEXT, "", "another kind"),
]


@pytest.mark.parametrize(("kind", "entry", "param", "words"), BAD)
def test_a_bad_value_is_refused(kind: str, entry: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(ControlError) as caught:
        Program.from_wire({kind: [entry]})
    assert caught.value.param == f"{kind}[0]{param}"
    assert words in caught.value.message


def test_limits_themselves_are_allowed() -> None:
    bias_token(0, 100)
    bias_token(2**31 - 1, -100.0)
    bias_text("x" * 256, 0.0)
    steer_logits("ab", -1000.0, between(2**31 - 2, 2**31 - 1))
    steer_residual("ab", 10_000, (4095,), between(1 - 2**31, 2**31 - 1))


@given(st.integers(0, 9), st.none() | st.integers(1, 9), st.integers(0, 30))
def test_a_window_covers_from_start_to_before_stop(
    start: int, length: int | None, position: int
) -> None:
    stop = None if length is None else start + length
    expected = position in range(start, 1000 if stop is None else stop)
    assert bias_token(1, 1.0, between(start, stop)).covers(position) is expected


def test_an_entry_without_a_window_covers_the_prompt_too() -> None:
    assert steer_residual("a", 1.0).bounds == (-(2**31), 2**31 - 1)
    assert steer_residual("a", 1.0, when=between(-3, 4)).bounds == (-3, 4)
    assert steer_residual("a", 1.0, when=between(None, 4)).covers(-100)
