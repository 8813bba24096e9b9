"""Malformed schemas, named by their keyword."""

from __future__ import annotations

from typing import Any

import pytest

from service.access.field_sizes import check_fields
from service.errors import BadRequestError


def refused(body: dict[str, Any]) -> str | None:
    with pytest.raises(BadRequestError) as caught:
        check_fields(body, None, trusts_templates=False)
    assert "malformed; allowed: " in caught.value.message
    return caught.value.param


def in_format(schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"patternProperties": ["x"]}, "patternProperties"),
        ({"properties": {"a": {"properties": None}}}, "properties.a.properties"),
        ({"properties": {"a": 3}}, "properties.a"),
        ({"items": [{}, "x"]}, "items[1]"),
        ({"anyOf": {"type": "string"}}, "anyOf"),
        ({"$defs": {"a": {"not": []}}}, "$defs.a.not"),
    ],
)
def test_a_keyword_that_holds_no_schema_is_named(schema: dict[str, Any], path: str) -> None:
    assert refused(in_format(schema)) == f"response_format.json_schema.schema.{path}"
    assert refused({"structured_outputs": {"json": schema}}) == f"structured_outputs.json.{path}"
    assert refused({"text": {"format": {"schema": schema}}}) == f"text.format.schema.{path}"


def test_a_schema_in_a_text_is_read() -> None:
    text = '{"patternProperties": ["x"]}'
    assert refused({"structured_outputs": {"json": text}}) == (
        "structured_outputs.json.patternProperties"
    )


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object", "properties": {"properties": {"type": "integer"}, "a": True}},
        {"enum": [{"properties": 1}], "const": {"anyOf": 2}, "default": {"items": 3}},
        {"items": [{}, False], "additionalProperties": False, "anyOf": [{}, True]},
    ],
)
def test_good_schemas_pass(schema: dict[str, Any]) -> None:
    check_fields(in_format(schema), None, trusts_templates=False)


def test_a_format_without_its_schema_is_refused() -> None:
    body = {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}
    with pytest.raises(BadRequestError) as caught:
        check_fields(body, None, trusts_templates=False)
    assert caught.value.param == "response_format.json_schema.schema"
