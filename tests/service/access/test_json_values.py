"""Values that no body may hold, and the place where a refusal says they stand."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.access.json_values import MAX_DEPTH, MAX_VALUES, check_values, parse
from service.errors import MAX_ECHO, BadRequestError


def refused(body: Any) -> str | None:
    """Return the param of a refusal."""
    with pytest.raises(BadRequestError) as caught:
        check_values(body)
    assert len(caught.value.message) < 400
    return caught.value.param


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", str(2**63)])
def test_numbers_that_nothing_holds(number: str) -> None:
    body = json.loads(f'{{"logit_control": {{"bias": [{{"add": 1}}, {{"add": {number}}}]}}}}')
    assert refused(body) == "logit_control.bias[1].add"


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "x\udfff"])
def test_texts_that_are_none(text: str) -> None:
    assert refused({"messages": [{"content": text}]}) == "messages[0].content"
    assert refused({"a": {text: 1}}) == "a"


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from("abcn"), inner),
)


@given(VALUES)
def test_what_json_says_is_let_through(body: Any) -> None:
    check_values(body)


@given(VALUES, st.sampled_from([2**63, -(2**63) - 1, float("nan"), "\0", "\ud812"]))
def test_a_bad_value_is_found_wherever_it_stands(body: Any, bad: Any) -> None:
    assert refused({"a": [body, {"b": bad}, body]}) == "a[1].b"


def nested(depth: int) -> Any:
    body: Any = 1.0
    for _ in range(depth):
        body = [body]
    return body


def test_what_is_too_deep_is_refused_by_its_path() -> None:
    check_values({"a": nested(MAX_DEPTH - 1)})
    for depth in (MAX_DEPTH, 100_000):
        assert refused({"a": nested(depth)}) == ("a" + "[0]" * MAX_DEPTH)[:MAX_ECHO] + "…"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": [{}] + [1] * MAX_VALUES}, "messages"),
        ({"prompt": [1] * MAX_VALUES + [1.5]}, "prompt"),
        ({"prompt": [-1] * MAX_VALUES + [1]}, "prompt"),
        ({"prompt": [True] * MAX_VALUES + [1]}, "prompt"),
        ({"positions": [1] * MAX_VALUES}, "positions"),
        ({"a": [[], {}] * MAX_VALUES}, "a"),
        ({"a": dict.fromkeys(map(str, range(MAX_VALUES)), 1)}, "a"),
        ({"a": [[1] * 1000] * 40}, None),
    ],
)
def test_more_values_than_a_request_has(body: Any, param: str | None) -> None:
    found = refused(body)
    assert param is None or found == param


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": [1] * 10 * MAX_VALUES},
        {"prompt": [[1] * MAX_VALUES, [2] * MAX_VALUES]},
        {"continuations": [[1] * MAX_VALUES, "a"]},
        {"logit_control": {"force": {"token_ids": [1] * 2 * MAX_VALUES}}},
        {"a": [1] * (MAX_VALUES - 1)},
    ],
)
def test_lists_of_tokens_are_as_long_as_a_prompt(body: Any) -> None:
    check_values(body)


@pytest.mark.parametrize(
    ("data", "param"),
    [
        *((data, "body") for data in (b"", b"{", b"[]", b"null", b'"a"', b"3", b'{"a": "\xff"}')),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "body"),
        (b'{"a": {"b": [1, ' + b"9" * 5000 + b"]}}", "a.b[1]"),
        (b'{"a": {"b": [1, -' + b"9" * 5000 + b"]}}", "a.b[1]"),
    ],
)
def test_bytes_that_are_no_request(data: bytes, param: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        check_values(parse(data))
    assert caught.value.param == param
    assert len(caught.value.message) < 200


@given(st.binary())
def test_any_bytes_are_an_object_or_refused(data: bytes) -> None:
    with contextlib.suppress(BadRequestError):
        assert isinstance(parse(data), dict)
