"""Grammars over HTTP: obeyed in any order of requests, or refused by the field they stand in."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.client import Client
from tests.integration.test_mended_routes import HELLO, post
from tests.integration.test_vllm_routes import WEATHER

BOOLEAN = {"type": "boolean"}


def test_a_schema_is_obeyed_after_others_and_tools_are_called(v1: Client) -> None:
    """vLLM's engine keeps the compiler of its first grammar."""
    several = {"type": "array", "items": [BOOLEAN, BOOLEAN], "minItems": 2, "maxItems": 2}
    short = {"type": "string", "pattern": "^[a-z]+$", "maxLength": 3}

    def answered(schema: dict[str, Any]) -> Any:
        form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
        answer = post(
            v1, "/v1/chat/completions", messages=HELLO, response_format=form, max_tokens=60
        )
        assert answer.status_code == 200, answer.text
        return json.loads(answer.json()["choices"][0]["message"]["content"])

    assert isinstance(answered(BOOLEAN), bool)
    assert [type(value) for value in answered(several)] == [bool, bool]
    assert 1 <= len(answered(short)) <= 3
    fields = {"messages": HELLO, "tools": [WEATHER], "tool_choice": "required"}
    answer = post(v1, "/v1/chat/completions", **fields, max_tokens=60)
    assert answer.status_code == 200, answer.text
    (call, *_) = answer.json()["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "weather"
    assert isinstance(answered(BOOLEAN), bool)


@pytest.mark.parametrize(
    ("path", "field", "asked"),
    [
        (
            "/v1/chat/completions",
            "response_format",
            lambda schema: {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "schema": schema},
                }
            },
        ),
        (
            "/v1/chat/completions",
            "tools",
            lambda schema: {
                "tool_choice": "required",
                "tools": [
                    {
                        "type": "function",
                        "function": {
                            "name": "f",
                            "strict": True,
                            "parameters": {"type": "object", "properties": {"a": schema}},
                        },
                    }
                ],
            },
        ),
        (
            "/v1/chat/completions",
            "structured_outputs",
            lambda s: {"structured_outputs": {"json": s}},
        ),
        (
            "/v1/responses",
            "text.format",
            lambda s: {"text": {"format": {"type": "json_schema", "name": "a", "schema": s}}},
        ),
    ],
)
def test_a_schema_that_none_enforces_is_refused_by_its_field(
    v1: Client, path: str, field: str, asked: Any
) -> None:
    body = asked({"type": "integer", "not": {"const": 1}})
    body["input" if path.endswith("responses") else "messages"] = HELLO
    for stream in (False, True) if path.endswith("completions") else (False,):
        answer = post(v1, path, **body, stream=stream)
        assert answer.status_code == 400, answer.text
        error = answer.json()["error"]
        assert error["param"] == field
        assert "xgrammar passes over" in error["message"]
