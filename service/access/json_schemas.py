"""JSON Schemas for structured outputs: malformed ones are refused before they are compiled.

A grammar compiler may ignore a keyword of the wrong type, or treat it as a costly one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from service.errors import MAX_ECHO, BadRequestError

_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""Keywords that hold schemas by name."""
_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_ONE = frozenset(
    {
        *("additionalProperties", "unevaluatedProperties", "propertyNames", "not"),
        *("additionalItems", "unevaluatedItems", "contains", "if", "then", "else"),
    }
)
_KINDS = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
_PLACES = (
    ("response_format", "json_schema", "schema"),
    ("structured_outputs", "json"),
    ("text", "format", "schema"),
    ("output_config", "format", "schema"),
)
"""Paths of the schema for the answer, in requests of any route."""


def check_schemas(body: Mapping[str, Any]) -> None:
    """Refuse a schema that is malformed or missing.

    Raises:
        BadRequestError: the schema is malformed or missing.

    """
    described = body.get("response_format")
    described = described.get("json_schema") if isinstance(described, dict) else None
    if isinstance(described, dict) and described.get("schema") is None:
        raise BadRequestError("required: a JSON Schema", "response_format.json_schema.schema")
    for place in _PLACES:
        value: Any = body
        for part in place:
            value = value.get(part) if isinstance(value, dict) else None
        if isinstance(value, dict):
            check_schema(value, ".".join(place))


def check_schema(schema: Mapping[str, Any], path: str) -> None:
    """Refuse a schema whose keywords hold other values than schemas.

    Args:
        schema: the parsed schema.
        path: its JSON path in the request.

    Raises:
        BadRequestError: at the first such keyword.

    """
    waiting: list[tuple[Any, str]] = [(schema, path)]
    while waiting:
        value, place = waiting.pop()
        if isinstance(value, dict):
            waiting += _below(value, place)
        elif not isinstance(value, bool):
            raise _malformed(value, place, "a schema")


def _below(schema: Mapping[str, Any], path: str) -> Iterator[tuple[Any, str]]:
    """Yield the schemas in one."""
    for keyword, value in schema.items():
        place = f"{path}.{keyword}"
        if keyword in _MAPS:
            if not isinstance(value, dict):
                raise _malformed(value, place, "an object of schemas")
            yield from ((each, f"{place}.{name}") for name, each in value.items())
        elif keyword in _LISTS or (keyword == "items" and isinstance(value, list)):
            if not isinstance(value, list):
                raise _malformed(value, place, "a list of schemas")
            yield from ((each, f"{place}[{at}]") for at, each in enumerate(value))
        elif keyword in _ONE or keyword == "items":
            yield value, place


def _malformed(value: object, path: str, allowed: str) -> BadRequestError:
    kind = "null" if value is None else _KINDS.get(type(value), "a number")
    return BadRequestError(
        f"{kind} makes the schema malformed; allowed: {allowed}", path[:MAX_ECHO]
    )
