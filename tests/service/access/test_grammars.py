"""Grammars that no compiler should be given, wherever in a request they stand."""

from __future__ import annotations

from typing import Any

import pytest

from service.access.grammars import MAX_CHARACTERS, MAX_ENTRIES, MAX_REPEATS, grammar_field
from service.access.json_values import check_values
from service.errors import BadRequestError


def wrapped(field: str, value: Any) -> list[tuple[dict[str, Any], str]]:
    """Return requests that hold a grammar's field, and the path of it in each."""
    schema = {"type": "object", "properties": {"a": {field: value}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    return [
        ({"structured_outputs": {field: value}}, f"structured_outputs.{field}"),
        ({"tools": [tool]}, f"tools[0].function.parameters.properties.a.{field}"),
    ]


@pytest.mark.parametrize(
    ("field", "most", "more"),
    [
        *((field, "a" * most, "a" * (most + 1)) for field, most in MAX_CHARACTERS.items()),
        *((field, "a?" * MAX_REPEATS, "a?b*" * MAX_REPEATS) for field in MAX_CHARACTERS),
        *((field, ["a"] * most, ["a"] * (most + 1)) for field, most in MAX_ENTRIES.items()),
        ("properties", {str(at): {} for at in range(1024)}, {str(at): {} for at in range(1025)}),
    ],
)
def test_a_grammar_has_a_size(field: str, most: Any, more: Any) -> None:
    for body, _ in wrapped(field, most):
        check_values(body)
    for body, path in wrapped(field, more):
        with pytest.raises(BadRequestError) as caught:
            check_values(body)
        assert caught.value.param == path


def test_other_fields_and_other_types_are_let_through() -> None:
    check_values({"content": "?" * 100_000, "regex": 5, "enum": "x" * 100_000, "choice": None})


TOOLS = [{"type": "function", "function": {"name": "f"}}]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a"}, "tools": TOOLS}, "structured_outputs"),
        ({"response_format": {"type": "json_object"}, "tools": TOOLS}, "response_format"),
        (
            {"response_format": {"type": "json_object"}, "tool_choice": "required"},
            "response_format",
        ),
        (
            {"response_format": {}, "tools": TOOLS, "tool_choice": {"type": "function"}},
            "tools",
        ),
        ({"response_format": {}, "tools": TOOLS, "tool_choice": "required"}, "tools"),
        (
            {"output_config": {"format": {}}, "tools": TOOLS, "tool_choice": {"type": "any"}},
            "tools",
        ),
        (
            {"output_config": {"format": {}}, "tools": TOOLS, "tool_choice": {"type": "auto"}},
            "output_config.format",
        ),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format"),
        ({"text": "a text", "output_config": {"effort": "low"}}, "structured_outputs"),
        ({"tools": TOOLS, "tool_choice": "auto"}, "tools"),
    ],
)
def test_the_field_that_a_grammar_comes_from_is_known(body: dict[str, Any], field: str) -> None:
    assert grammar_field(body) == field
