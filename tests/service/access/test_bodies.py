"""What no body may hold, and where it is said to stand."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.access.bodies import (
    MAX_DEPTH,
    MAX_STOP_CHARACTERS,
    MAX_VALUES,
    check_fields,
    check_values,
    name_messages,
    parse,
)
from service.errors import MAX_ECHO, BadRequestError


def check(body: Any, max_tokens: int | None) -> None:
    """Check all of a body."""
    check_values(body)
    check_fields(body, max_tokens, trusts_templates=False)


def refused(body: Any, max_tokens: int | None = None) -> str | None:
    """Return the param of a refusal."""
    with pytest.raises(BadRequestError) as caught:
        check(body, max_tokens)
    assert len(caught.value.message) < 400
    return caught.value.param


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", str(2**63)])
def test_numbers_that_nothing_holds(number: str) -> None:
    body = json.loads(f'{{"logit_control": {{"bias": [{{"add": 1}}, {{"add": {number}}}]}}}}')
    assert refused(body) == "logit_control.bias[1].add"


def test_a_chat_of_no_messages() -> None:
    assert refused({"messages": []}) == "messages"
    check({"messages": [[]]}, None)


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


@pytest.mark.parametrize("field", ["json", "structural_tag"])
def test_a_schema_in_a_text_is_checked_as_one_that_is_none(field: str) -> None:
    path = f"structured_outputs.{field}"
    for schema, param in [
        ('{"items": {"pattern": "' + "a" * 5000 + '"}}', f"{path}.items.pattern"),
        ('{"a": ' * 5000 + "1" + "}" * 5000, path),
        ("{", path),
    ]:
        assert refused({"structured_outputs": {field: schema}}) == param
    check_fields({"structured_outputs": {field: '{"type": "array"}'}}, None, False)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"n": 129}, "n"),
        ({"n": 10**6}, "n"),
        ({"prompt": ["a"] * 1025}, "prompt"),
        ({"prompt": [[1]] * 100_000}, "prompt"),
        ({"n": "129"}, "n"),
        ({"n": 2.0}, "n"),
        ({"n": True}, "n"),
        ({"max_tokens": "10"}, "max_tokens"),
        ({"prompt": ["a"] * 9, "n": 128}, "prompt"),
        ({"prompt": [[1]] * 1025}, "prompt"),
        ({"messages": [[{"role": "user", "content": "a"}]] * 1025}, "messages"),
        ({"stop": ["a"] * 65}, "stop"),
        ({"stop": ["a", "b" * (MAX_STOP_CHARACTERS + 1)]}, "stop[1]"),
        ({"stop": "b" * (MAX_STOP_CHARACTERS + 1)}, "stop"),
        ({"stop_sequences": ["a"] * 65}, "stop_sequences"),
        ({"stop_sequences": ["b" * (MAX_STOP_CHARACTERS + 1)]}, "stop_sequences[0]"),
        ({"stop_token_ids": [1] * 129}, "stop_token_ids"),
        ({"allowed_token_ids": [1] * 1025}, "allowed_token_ids"),
        ({"bad_words": ["a"] * 129}, "bad_words"),
        ({"bad_words": ["a" * 8192, "b" * 8193]}, "bad_words"),
        ({"logit_bias": {str(i): 1 for i in range(1025)}}, "logit_bias"),
        ({"max_tokens": 11}, "max_tokens"),
        ({"max_completion_tokens": 11}, "max_completion_tokens"),
        ({"max_output_tokens": 11}, "max_output_tokens"),
        ({"model": "x" * 257}, "model"),
        (
            {"repetition_detection": {"max_pattern_size": 257}},
            "repetition_detection.max_pattern_size",
        ),
        ({"items": ["a"] * 1025}, "items"),
        ({"messages": [{}] * 2049}, "messages"),
        ({"input": ["a"] * 2049}, "input"),
        ({"tools": [{}] * 129}, "tools"),
        ({"tokens": [1] * ((1 << 17) + 1)}, "tokens"),
        ({"vllm_xargs": {"sensefield": "x"}}, "vllm_xargs.sensefield"),
        ({"chat_template": "{{ 1 }}"}, "chat_template"),
    ],
)
def test_sizes_that_no_request_may_have(body: dict[str, Any], param: str) -> None:
    assert refused(body, max_tokens=10) == param


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": list(range(100_000)), "n": 128, "max_tokens": 10},
        {"prompt": ["a"] * 8, "n": 128, "stop": None, "chat_template": None},
        {"repetition_detection": {"max_pattern_size": 256, "min_count": 2}},
        {"messages": [{"role": "user", "content": "a"}] * 2000, "n": 128},
        {"messages": [[{"role": "user", "content": "a"}]] * 8, "n": 128},
        {
            "n": None,
            "max_tokens": None,
            "prompt": {},
            "stop": 3,
            "logit_bias": "x",
            "vllm_xargs": [],
        },
    ],
)
def test_what_is_within_is_left_to_the_route(body: dict[str, Any]) -> None:
    check_fields(body, max_tokens=10, trusts_templates=False)
    check_fields({"chat_template": "x"}, None, trusts_templates=True)


def test_a_message_of_a_response_has_its_type() -> None:
    said = {"role": "assistant", "content": []}
    body = {"input": [dict(said), {**said, "type": "other"}, {"id": "a"}, "text"]}
    name_messages(body)
    assert body["input"] == [
        {**said, "type": "message"},
        {**said, "type": "other"},
        {"id": "a"},
        "text",
    ]
    for other in ({}, {"input": "text"}, {"input": {"role": "user", "content": ""}}):
        same = dict(other)
        name_messages(same)
        assert same == other
