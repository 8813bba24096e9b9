"""The parts of a grammar that xgrammar compiles without enforcing them.

xgrammar reads one keyword of a schema that says what kind of value is allowed (``$ref``, ``const``,
``enum``, ``anyOf``, ``allOf`` or ``type``) and ignores most of the keywords beside it. The rules
here were found by compiling a schema of each kind with xgrammar 0.2.8 and trying values that it
forbids. Keywords that JSON Schema does not define restrict nothing, and pass.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from vllm.v1.structured_output.backend_types import StructuredOutputOptions
from vllm.v1.structured_output.backend_xgrammar import STRING_SUPPORTED_FORMATS

from service.json_path import json_path

Path = tuple[str | int, ...]
Found = Iterator[Path]

_KEYWORDS = {
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "array": (
        *("items", "prefixItems", "unevaluatedItems", "minItems", "maxItems", "uniqueItems"),
        *("contains", "minContains", "maxContains"),
    ),
    "object": (
        *("properties", "additionalProperties", "unevaluatedProperties", "patternProperties"),
        *("propertyNames", "required", "minProperties", "maxProperties"),
        *("dependentRequired", "dependentSchemas", "dependencies"),
    ),
}
"""Keywords that restrict the values of one type, by that type."""
_TYPE_OF = {key: name for name, keys in _KEYWORDS.items() for key in keys}
_NEVER = frozenset(
    {
        *("multipleOf", "uniqueItems", "contains", "minContains", "maxContains"),
        *("dependentRequired", "dependentSchemas", "dependencies"),
    }
)
_ANYWHERE = frozenset({"$dynamicRef", "$recursiveRef", "not", "if", "oneOf"})
"""Keywords that restrict any value, and are ignored; ``oneOf`` is read as ``anyOf``."""
_KINDS = ("$ref", "const", "enum", "anyOf", "allOf")
"""Keywords for the kind of value; the first one present is read, and nothing beside it."""
_SUBSCHEMAS = ("additionalProperties", "unevaluatedProperties", "propertyNames", "items")
_LISTS = ("prefixItems", "anyOf", "allOf")
_MAPS = ("properties", "patternProperties")
_COUNTS = ("minProperties", "maxProperties")
_IMPLIES = {
    "object": {"properties", "additionalProperties", "unevaluatedProperties"},
    "array": {"items", "prefixItems", "unevaluatedItems"},
}
"""Keywords that imply a type if none is given."""
_IS_TYPE: dict[str, Any] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}
_LITERALS = re.compile(r"\\[^A-Za-z]|\[\^?\]?(?:\\.|[^\]\\])*\]")
"""Escaped signs and classes of characters."""
_PASSED_OVER = re.compile(r"\(\?<?[=!]|(?<![(|:])(?<!^)\^|\$(?!$|[)|])|\\[AGKQXZz]")
"""Lookaround, an inner anchor, and escapes that xgrammar reads as the letter itself."""


def unenforced(kind: StructuredOutputOptions, text: str) -> str | None:
    """Return the path of the first part of a grammar that xgrammar does not enforce, or None.

    Args:
        kind: kind of grammar.
        text: the grammar, in the form of vLLM's compilers.

    Raises:
        ValueError: the text of a schema or tag is no JSON.

    """
    if kind == StructuredOutputOptions.REGEX:
        return None if _is_enforced(text) else "the regular expression"
    if kind == StructuredOutputOptions.JSON:
        found = _in_schema(json.loads(text))
    elif kind == StructuredOutputOptions.STRUCTURAL_TAG:
        found = _in_tag(json.loads(text), ())
    else:
        return None
    path = next(found, None)
    return None if path is None else json_path(path)


def _is_enforced(regex: str) -> bool:
    return _PASSED_OVER.search(_LITERALS.sub("x", regex)) is None


def _in_tag(tag: Any, path: Path) -> Found:
    """Yield the unenforced parts of the schemas and expressions in a structural tag."""
    if isinstance(tag, list):
        for at, part in enumerate(tag):
            yield from _in_tag(part, (*path, at))
    elif isinstance(tag, dict):
        for key, part in tag.items():
            if key in ("json_schema", "schema"):
                yield from _in_schema(part, (*path, key))
            elif key == "pattern" and isinstance(part, str) and not _is_enforced(part):
                yield (*path, key)
            else:
                yield from _in_tag(part, (*path, key))


def _in_schema(root: Any, path: Path = ()) -> Found:
    """Yield the paths of keywords that are not enforced, from the root of a schema on."""
    waiting: list[tuple[Any, Path]] = [(root, path)]
    seen = set()
    while waiting:
        schema, at = waiting.pop()
        if not isinstance(schema, dict) or id(schema) in seen:
            continue
        seen.add(id(schema))
        yield from ((*at, key) for key in sorted(_passed_over(schema)))
        reference = schema.get("$ref")
        if isinstance(reference, str):
            waiting.append((_referred(root, reference), (*at, "$ref")))
        for key in _SUBSCHEMAS:
            below = schema.get(key)
            if key == "propertyNames" and isinstance(below, dict) and not below.keys() & {*_KINDS}:
                below = {"type": "string", **below}
            waiting.append((below, (*at, key)))
        for key in _LISTS:
            parts = schema.get(key)
            for place, part in enumerate(parts if isinstance(parts, list) else ()):
                waiting.append((part, (*at, key, place)))
        for key in _MAPS:
            parts = schema.get(key)
            for name, part in parts.items() if isinstance(parts, dict) else ():
                waiting.append((part, (*at, key, name)))


def _referred(root: Any, reference: str) -> Any:
    """Return the schema that a reference into the same document names, if xgrammar finds it."""
    found = root
    for part in reference.removeprefix("#").split("/")[1:]:
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _passed_over(schema: Mapping[str, Any]) -> set[str]:
    """Return the keywords of one schema, without those below it, that are not enforced."""
    restricts = schema.keys() & {*_TYPE_OF, *_KINDS, *_ANYWHERE, "type"}
    kind = next((key for key in _KINDS if key in schema), None)
    if kind is not None:
        beside = restricts - {kind}
        if kind == "$ref" and not str(schema[kind]).startswith("#/") and schema[kind] != "#":
            beside.add(kind)
        if kind == "allOf" and isinstance(schema[kind], list) and len(schema[kind]) != 1:
            beside.add(kind)
        if kind in ("const", "enum") and _all_of_type(schema, kind):
            beside.discard("type")
        return beside
    types = _types(schema)
    if types is None:
        return restricts
    if not types:
        return {"type"}
    if "integer" in types:
        types = types | {"number"}
    of_types = {key for key in restricts & _TYPE_OF.keys() if _TYPE_OF[key] in types}
    enforced = {key for key in of_types if _is_enforced_beside(schema, key, restricts)}
    return (restricts & _ANYWHERE) | (of_types - enforced)


def _all_of_type(schema: Mapping[str, Any], kind: str) -> bool:
    values = [schema[kind]] if kind == "const" else schema[kind]
    types = _types(schema) or set()
    if "type" not in schema or not isinstance(values, list):
        return True
    return all(any(_IS_TYPE[name](value) for name in types if name in _IS_TYPE) for value in values)


def _types(schema: Mapping[str, Any]) -> set[str] | None:
    """Return the types of value that xgrammar allows; None for any."""
    given = schema.get("type")
    if given is not None:
        return {str(name) for name in given} if isinstance(given, list) else {str(given)}
    implied = {name for name, keys in _IMPLIES.items() if keys & schema.keys()}
    return implied or None


def _is_enforced_beside(schema: Mapping[str, Any], key: str, restricts: set[str]) -> bool:
    """Say whether xgrammar enforces a keyword of a type, beside the others that restrict."""
    objects = {name for name in restricts if _TYPE_OF.get(name) == "object"}
    value = schema[key]
    match key:
        case "minLength" | "maxLength":
            enforced = not restricts & {"pattern", "format"}
        case "pattern":
            enforced = "format" not in restricts and _is_enforced(str(value))
        case "format":
            enforced = str(value) in STRING_SUPPORTED_FORMATS
        case "required":
            known = schema.get("properties")
            names = known.keys() if isinstance(known, dict) else ()
            enforced = isinstance(value, list) and all(str(name) in names for name in value)
        case "propertyNames":
            enforced = objects <= {key, *_COUNTS}
        case "patternProperties":
            single = isinstance(value, dict) and len(value) == 1
            enforced = single and objects <= {key, "additionalProperties", *_COUNTS}
        case _:
            enforced = key not in _NEVER
    return enforced
