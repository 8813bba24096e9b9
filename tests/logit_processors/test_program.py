"""Control programs: what they refuse as a whole, and their way over the wire."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logit_processors.checks import ControlError
from logit_processors.control import ALWAYS, between
from logit_processors.controls.force import MAX_FORCED
from logit_processors.program import MAX_PATTERNS, Program
from logit_processors.registry import by_name
from logit_processors.wire import MAX_ENTRIES
from tests.entries import (
    bias_text,
    bias_token,
    program_of,
    steer_logits,
    suppress_text,
    suppress_token,
)

token_ids = st.integers(0, 2**31 - 1)
adds = st.floats(-100, 100)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\ufffd"), min_size=1)
texts = texts.filter(lambda text: len(text.encode()) <= 256)
windows = st.just(ALWAYS) | st.tuples(st.integers(0, 99), st.none() | st.integers(1, 99)).map(
    lambda bounds: between(bounds[0], None if bounds[1] is None else bounds[0] + bounds[1])
)
programs = st.builds(
    program_of,
    token_bias=st.lists(st.builds(bias_token, token_ids, adds, windows), max_size=4).map(tuple),
    text_bias=st.lists(st.builds(bias_text, texts, adds, st.booleans(), windows), max_size=3).map(
        tuple
    ),
    steer=st.lists(
        st.builds(steer_logits, st.text("0123456789abcdef", min_size=1), adds, windows), max_size=3
    ).map(tuple),
    token_suppress=st.lists(st.builds(suppress_token, token_ids, windows), max_size=4).map(tuple),
    text_suppress=st.lists(st.builds(suppress_text, texts, st.booleans(), windows), max_size=3).map(
        tuple
    ),
    force=st.just(()) | st.lists(st.just(2**31 - 1), max_size=3).map(tuple),
)


@given(programs)
def test_a_program_survives_the_wire(program: Program) -> None:
    # The wire is msgpack, which keeps no tuples either.
    assert Program.from_wire(json.loads(json.dumps(program.to_wire()))) == program
    assert Program.from_wire(program.to_wire()) == program


def test_what_is_not_asked_for_is_not_sent() -> None:
    assert program_of().to_wire() == {}
    assert program_of(token_suppress=(suppress_token(3),)).to_wire() == {
        "token_suppress": [{"token_id": 3}]
    }


BAD: list[tuple[str, Callable[[], object], str, list[str]]] = [
    (
        "too many entries",
        lambda: program_of(token_bias=(bias_token(1, 1.0),) * (MAX_ENTRIES + 1)),
        "",
        ["1025 entries", "allowed: 1024"],
    ),
    (
        "too many patterns",
        lambda: program_of(
            text_bias=(bias_text("a", 1.0),) * MAX_PATTERNS, text_suppress=(suppress_text("b"),)
        ),
        "",
        ["65 text patterns", "allowed: 64"],
    ),
    (
        "forced and suppressed",
        lambda: program_of(token_suppress=(suppress_token(4, between(1, 3)),), force=(4, 5, 4)),
        "force",
        ["token 4", "position 2"],
    ),
]


@pytest.mark.parametrize(("make", "param", "words"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_a_bad_program_is_refused(make: Callable[[], object], param: str, words: list[str]) -> None:
    with pytest.raises(ControlError) as caught:
        make()
    assert caught.value.param == param
    for word in words:
        assert word in caught.value.message


def test_a_token_may_be_forced_where_it_is_not_suppressed() -> None:
    program_of(token_suppress=(suppress_token(4, between(1, 3)),), force=(4, 5, 6, 4))


def test_limits_themselves_are_allowed() -> None:
    program_of(force=(2**31 - 1,) * MAX_FORCED)
    program_of(
        token_bias=(bias_token(0, 100), bias_token(2**31 - 1, -100.0)),
        text_bias=(bias_text("x" * 256, 0.0),) * MAX_PATTERNS,
        steer=(steer_logits("ab", -1000.0, between(2**31 - 2, 2**31 - 1)),),
        token_suppress=(suppress_token(0),) * (MAX_ENTRIES - MAX_PATTERNS - 3),
    )


@pytest.mark.parametrize(
    ("wire", "param"),
    [
        (None, ""),
        ([], ""),
        ({"bias": []}, "bias"),
        ({"token_bias": {}}, "token_bias"),
        ({"token_bias": [3]}, "token_bias[0]"),
        ({"token_bias": [{}]}, "token_bias[0].add"),
        ({"token_bias": [{"token_id": 1, "add": 1.0, "more": 1}]}, "token_bias[0].more"),
        ({"token_bias": [{"token_id": 1, "add": 1.0}, {"token_id": 1, "add": 200}]},
         "token_bias[1].add"),
        ({"text_suppress": [{"text": "a", "when": [1, 2]}]}, "text_suppress[0].when"),
        ({"force": 3}, "force"),
        ({"force": [{"token_ids": [1, "2"]}]}, "force[0].token_ids[1]"),
        ({"force": [{"token_ids": [3, -1]}]}, "force[0].token_ids[1]"),
        ({"force": [{"token_ids": [1] * (MAX_FORCED + 1)}]}, "force[0].token_ids"),
    ],
)  # fmt: skip
def test_a_wire_that_is_no_program_is_refused(wire: object, param: str) -> None:
    with pytest.raises(ControlError) as caught:
        Program.from_wire(wire)
    assert caught.value.param == param


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [*by_name(), "token_id", "token_ids", "add", "when", "text", "vector"]
                ),
                inner,
            )
        ),
        max_leaves=8,
    )
)
def test_any_wire_gives_a_program_or_a_control_error(wire: Any) -> None:
    try:
        program = Program.from_wire(wire)
    except ControlError:
        return
    assert Program.from_wire(program.to_wire()) == program


def test_only_a_bias_on_tokens_can_never_fail() -> None:
    assert not program_of(token_bias=(bias_token(1, -100),)).can_fail
    assert program_of(token_suppress=(suppress_token(1),)).can_fail
    assert program_of(text_suppress=(suppress_text("a"),)).can_fail
    assert program_of(text_bias=(bias_text("a", 1.0),)).can_fail
    assert program_of(steer=(steer_logits("ab", 1),)).can_fail
    assert program_of(force=(1,)).can_fail
