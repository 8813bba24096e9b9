"""Sizes that no request may have, and texts that are JSON."""

from __future__ import annotations

from typing import Any

import pytest

from service.access.field_sizes import MAX_STOP_CHARACTERS, check_fields
from service.errors import BadRequestError


def refused(body: Any, max_tokens: int | None = None) -> str | None:
    """Return the param of a refusal."""
    with pytest.raises(BadRequestError) as caught:
        check_fields(body, max_tokens, trusts_templates=False)
    assert len(caught.value.message) < 400
    return caught.value.param


def test_a_chat_of_no_messages() -> None:
    assert refused({"messages": []}) == "messages"
    check_fields({"messages": [[]]}, None, trusts_templates=False)


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
