"""The parts of a grammar that xgrammar passes over, found by what it lets through."""

from __future__ import annotations

import json
from typing import Any

import pytest
import xgrammar
from vllm.v1.structured_output.backend_types import StructuredOutputOptions
from xgrammar.testing import _is_grammar_accept_string

from service.engine.unenforced import unenforced

JSON = StructuredOutputOptions.JSON
REGEX = StructuredOutputOptions.REGEX
INTEGER = {"type": "integer"}
OBJECT = {"type": "object", "properties": {"a": INTEGER, "b": INTEGER}}
NAMED = {"type": "object", "patternProperties": {"a": {}}}
PASSED_OVER: list[tuple[str, dict[str, Any], Any]] = [
    ("maxLength", {"type": "string", "pattern": "^[a-z]+$", "maxLength": 3}, "abcd"),
    ("maxLength", {"type": ["string", "null"], "pattern": "^a$", "maxLength": 0}, "a"),
    ("pattern", {"pattern": "^[a-z]+$"}, "1"),
    ("pattern", {"type": "string", "format": "date", "pattern": "^2021"}, "2020-01-01"),
    ("format", {"type": "string", "format": "idn-email"}, "a"),
    ("minLength", {"minLength": 2}, "a"),
    ("minimum", {"minimum": 3}, 1),
    ("multipleOf", {"type": "number", "multipleOf": 0.5}, 1.3),
    ("minItems", {"minItems": 2}, [1]),
    ("uniqueItems", {"items": INTEGER, "uniqueItems": True}, [1, 1]),
    ("contains", {"type": ["array", "string"], "items": {}, "contains": INTEGER}, ["a"]),
    ("required", {"type": "object", "required": ["a"]}, {}),
    ("required", {"type": "object", "additionalProperties": INTEGER, "required": ["q"]}, {"a": 1}),
    ("patternProperties", {**NAMED, "required": ["a"]}, {}),
    ("dependentRequired", {**OBJECT, "dependentRequired": {"a": ["b"]}}, {"a": 1}),
    ("type", {"type": "string", "enum": ["a", 1]}, 1),
    ("type", {"type": "string", "const": 5}, 5),
    ("maxLength", {"enum": ["abc", "a"], "maxLength": 1}, "abc"),
    ("enum", {"const": 5, "enum": [6]}, 5),
    ("minimum", {"anyOf": [INTEGER, {"type": "string"}], "minimum": 3}, 1),
    ("type", {"type": "object", "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, {}),
    ("oneOf", {"oneOf": [{**INTEGER, "minimum": 0}, {**INTEGER, "maximum": 5}]}, 3),
    ("oneOf", {"oneOf": [INTEGER, {"type": "number"}]}, 1),
    ("allOf", {"allOf": [{"properties": {"a": INTEGER}}, {"required": ["a"]}]}, "any"),
    ("type", {"allOf": [{"minimum": 3}], "type": "integer"}, "a"),
    ("not", {"type": "integer", "not": {"const": 1}}, 1),
    ("if", {"type": "integer", "if": {"minimum": 3}, "then": {"maximum": 5}}, 9),
    ("minimum", {"$ref": "#/$defs/a", "$defs": {"a": INTEGER}, "minimum": 3}, 1),
    ("$ref", {"$ref": "https://example.com/schema"}, 1),
    ("$ref", {"$ref": "#name", "$defs": {"a": {"$anchor": "name", **INTEGER}}}, "a"),
    ("$dynamicRef", {"$dynamicRef": "#a", "$defs": {"a": {"$dynamicAnchor": "a", **INTEGER}}}, "a"),
    ("pattern", {"type": "string", "pattern": "^(?=b)[ab]$"}, "a"),
    ("pattern", {"type": "string", "pattern": "^a^b$"}, "ab"),
    (
        "properties.a.pattern",
        {"type": "object", "properties": {"a": {"pattern": "^a$"}}},
        {"a": "b"},
    ),
    ("items.anyOf[1].not", {"type": "array", "items": {"anyOf": [INTEGER, {"not": INTEGER}]}}, [1]),
    ("$ref.not", {"$ref": "#/$defs/a", "$defs": {"a": {"not": INTEGER}}}, 1),
    ("propertyNames.not", {"type": "object", "propertyNames": {"not": {"const": "a"}}}, {"a": 1}),
]
ENFORCED: list[tuple[dict[str, Any], Any, Any]] = [
    ({"type": "string", "minLength": 1, "maxLength": 2}, "ab", "abc"),
    ({"type": "string", "pattern": "^(a|b)$|^[$^]$"}, "b", "c"),
    ({"type": ["string", "null"], "format": "date"}, None, "x"),
    ({"type": "number", "minimum": 0.1, "exclusiveMaximum": 0.2}, 0.15, 0.2),
    ({"type": "integer", "minimum": 3, "minLength": 9, "uniqueItems": True}, 3, 2),
    ({"type": "array", "prefixItems": [INTEGER], "items": {"type": "string"}}, [1, "a"], ["a"]),
    ({"items": INTEGER, "maxItems": 1}, [1], [1, 2]),
    ({**OBJECT, "required": ["a"], "minProperties": 2}, {"a": 1, "b": 2}, {"a": 1}),
    ({**OBJECT, "additionalProperties": {"type": "string"}}, {"a": 1, "c": "x"}, {"c": 1}),
    ({"properties": {"a": INTEGER}, "required": ["a"]}, {"a": 1}, {}),
    ({"type": "object", "patternProperties": {"^a+$": INTEGER}}, {"aa": 1}, {"aa": "x"}),
    ({"type": "object", "propertyNames": {"pattern": "^a+$"}}, {"aa": 1}, {"b": 1}),
    ({"type": ["string", "null"], "enum": ["a", None], "title": "t", "default": 1}, None, "b"),
    ({"anyOf": [INTEGER, {"type": "null"}], "description": "d", "x-own": 1}, None, "a"),
    ({"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": INTEGER, "b": {"not": {}}}}, 1, "a"),
    ({"type": "object", "properties": {"n": {"$ref": "#"}}}, {"n": {"n": {}}}, {"n": 1}),
]


def accepted(grammar: xgrammar.Grammar, value: Any) -> bool:
    return bool(_is_grammar_accept_string(grammar, json.dumps(value)))


@pytest.mark.parametrize(("path", "schema", "forbidden"), PASSED_OVER, ids=str)
def test_a_keyword_that_xgrammar_passes_over_is_named(
    path: str, schema: dict[str, Any], forbidden: Any
) -> None:
    told = json.dumps(schema)
    assert unenforced(JSON, told) == path
    # It is one indeed, or the rule could go.
    assert accepted(xgrammar.Grammar.from_json_schema(told), forbidden)


@pytest.mark.parametrize(("schema", "allowed", "forbidden"), ENFORCED, ids=str)
def test_a_schema_that_xgrammar_enforces_stays_with_it(
    schema: dict[str, Any], allowed: Any, forbidden: Any
) -> None:
    told = json.dumps(schema)
    assert unenforced(JSON, told) is None
    grammar = xgrammar.Grammar.from_json_schema(told)
    assert accepted(grammar, allowed)
    assert not accepted(grammar, forbidden)


@pytest.mark.parametrize("value", [[], 5, None, "string", [[]], {}])
@pytest.mark.parametrize(
    "keyword", ["type", "required", "properties", "$ref", "enum", "allOf", "format", "pattern"]
)
def test_a_schema_of_odd_values_raises_nothing(keyword: str, value: Any) -> None:
    unenforced(JSON, json.dumps({"type": "object", keyword: value}))
    unenforced(JSON, json.dumps({keyword: value}))


@pytest.mark.parametrize(
    ("regex", "enforced"),
    [
        (r"^\d{2}[-$^)]\$\^$", True),
        ("(^a$|^b$)", True),
        ("(?:^a$)", True),
        ("a(?=b)", False),
        ("(?<!a)b", False),
        ("a$b", False),
        (r"\Aa\Z", False),
        (r"\\Aa", True),
    ],
)
def test_a_regular_expression_is_read(regex: str, enforced: bool) -> None:
    assert (unenforced(REGEX, regex) is None) == enforced


def test_the_schemas_in_a_structural_tag_are_read() -> None:
    def tag(content: dict[str, Any]) -> str:
        inner = {"type": "tag", "begin": "<a>", "content": content, "end": "</a>"}
        return json.dumps({"type": "structural_tag", "format": {"type": "or", "elements": [inner]}})

    kind = StructuredOutputOptions.STRUCTURAL_TAG
    schema = {"type": "json_schema", "json_schema": {"type": "integer", "not": {"const": 1}}}
    assert unenforced(kind, tag(schema)) == "format.elements[0].content.json_schema.not"
    assert unenforced(kind, tag({"type": "json_schema", "json_schema": INTEGER})) is None
    assert unenforced(kind, tag({"type": "json_schema", "json_schema": True})) is None
    assert unenforced(kind, tag({"type": "regex", "pattern": "a(?=b)"})) is not None
    old = {
        "structures": [{"begin": "<a>", "schema": {"not": {}}, "end": "</a>"}],
        "triggers": ["<"],
    }
    assert unenforced(kind, json.dumps(old)) == "structures[0].schema.not"
