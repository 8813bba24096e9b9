"""The kinds of control: what they refuse, and what they say about it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logit_processors.checks import ControlError
from logit_processors.controls import (
    Steer,
    TextBias,
    TextSuppress,
    TokenBias,
    TokenSuppress,
    Window,
)

BAD: list[tuple[str, Callable[[], object], str, list[str]]] = [
    # what is wrong, how it is made, the field that is named, words that the message must hold
    ("add nan", lambda: TokenBias(1, float("nan")), "add", ["nan", "-100 to 100"]),
    ("add inf", lambda: TokenBias(1, float("inf")), "add", ["inf", "-100 to 100"]),
    ("add too large", lambda: TokenBias(1, 101.0), "add", ["101.0", "-100 to 100"]),
    ("add too small", lambda: TextBias("a", -101.0), "add", ["-101.0", "-100 to 100"]),
    ("add is bool", lambda: TokenBias(1, True), "add", ["True", "-100 to 100"]),
    ("strength", lambda: Steer("ab", 1000.5), "strength", ["1000.5", "-1000 to 1000"]),
    ("vector", lambda: Steer("", 1.0), "vector", ["''", "SHA-256"]),
    ("token below 0", lambda: TokenBias(-1, 1.0), "token_id", ["-1", "integers from 0"]),
    ("token is bool", lambda: TokenSuppress(True), "token_id", ["True", "integers from 0"]),
    ("token too large", lambda: TokenSuppress(2**31), "token_id", ["2147483648", "integers"]),
    ("no text", lambda: TextBias("", 1.0), "text", ["empty"]),
    ("long text", lambda: TextSuppress("x" * 257), "text", ["257 bytes", "256 bytes"]),
    ("long in bytes", lambda: TextSuppress("é" * 129), "text", ["258 bytes", "256 bytes"]),
    ("surrogate", lambda: TextSuppress("a\ud800"), "text", ["lone surrogate"]),
    ("replacement", lambda: TextSuppress("a\ufffd"), "text", ["U+FFFD"]),
    ("from below 0", lambda: Window(-1), "when.from", ["-1", "0 to 2^31 - 1"]),
    ("from is bool", lambda: Window(True), "when.from", ["True", "0 to 2^31 - 1"]),
    ("until is from", lambda: Window(5, 5), "when.until", ["5", "above when.from (5)"]),
    ("until too small", lambda: Window(5, 4), "when.until", ["4", "above when.from (5)"]),
]


@pytest.mark.parametrize(("make", "param", "words"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_a_bad_value_is_refused(make: Callable[[], object], param: str, words: list[str]) -> None:
    with pytest.raises(ControlError) as caught:
        make()
    assert caught.value.param == param
    for word in words:
        assert word in caught.value.message


def test_a_position_beyond_the_last_is_told_the_last() -> None:
    with pytest.raises(ControlError) as caught:
        Window(0, 2**31)
    assert "2^31" in caught.value.message or str(2**31 - 1) in caught.value.message


@pytest.mark.parametrize("add", [10**400, -(10**400)], ids=["above", "below"])
def test_an_integer_that_no_float_holds_is_refused(add: int) -> None:
    with pytest.raises(ControlError):
        TokenBias(1, add)


def test_limits_themselves_are_allowed() -> None:
    TokenBias(0, 100)
    TokenBias(2**31 - 1, -100.0)
    TextBias("x" * 256, 0.0)
    Steer("ab", -1000.0, Window(2**31 - 2, 2**31 - 1))


@given(st.integers(0, 9), st.none() | st.integers(1, 9), st.integers(0, 30))
def test_a_window_covers_from_start_to_before_stop(
    start: int, length: int | None, position: int
) -> None:
    stop = None if length is None else start + length
    expected = position in range(start, 1000 if stop is None else stop)
    assert Window(start, stop).covers(position) is expected
