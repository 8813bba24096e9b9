"""Write docs/api.md, the reference of Sensefield's own routes: `python docs/api.py`.

It is made of the OpenAPI of the application, which needs no engine for that.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_suffix(".md")
HEAD = """\
# API

Sensefield's own routes, and what it adds to requests of vLLM's, made of the server's OpenAPI by
`python docs/api.py`. A running server serves all of it, vLLM's routes too, at `/openapi.json`, and
as a page at `/docs`. Examples are in the [README](../README.md).
"""
ERRORS = (
    "Every error, of paths (404) and methods (405) that there are not too, is",
    '`{"error": {...}}` with these fields in it. On `/v1/messages` and below it is Anthropic\'s',
    '`{"type": "error", "error": {"type": ..., "message": ...}, "request_id": ...}`.',
    "409, 504 and 507 come with `x-should-retry: false`, which keeps OpenAI's and other SDKs",
    "from sending the same request again.",
)
ADDED = ("logit_control", "distribution")
"""Fields of vLLM's requests that are Sensefield's."""
STOCK = ("ChatRequest", "TextRequest")
"""The requests that have them."""
ANSWERS = {"ChatAnswer": "ChatChoice", "TextAnswer": "TextChoice"}
"""Answers of vLLM's whose choices have distributions."""
Schemas = dict[str, Any]


def openapi() -> dict[str, Any]:
    """Return the OpenAPI of an application without an engine."""
    from service.plugins import NAME

    os.environ["VLLM_PLUGINS"] = NAME
    from vllm.entrypoints.launchers.app import build_app

    from service.launch import parse

    app = build_app(parse(["model", "--host", "127.0.0.1"]), ("generate",))
    spec: dict[str, Any] = app.openapi()
    return spec


def page(spec: dict[str, Any]) -> str:
    """Return the page of an OpenAPI."""
    schemas: Schemas = spec["components"]["schemas"]
    own = [
        (method, path, operation)
        for path, operations in spec["paths"].items()
        for method, operation in operations.items()
        if "tags" in operation
    ]
    lines = [HEAD, "## Routes", ""]
    for method, path, operation in own:
        lines += route(method.upper(), path, operation, schemas)
    lines += ["## Objects", ""]
    for name in reached(own, schemas):
        lines += [f"### {titled(name)}", "", schemas[name].get("description", ""), ""]
        lines += fields(schemas[name], schemas)
    lines += ["## Errors", "", *ERRORS, ""]
    lines += fields(schemas["Error"]["properties"]["error"], schemas)
    told = {
        status: answer["description"]
        for _, _, operation in own
        for status, answer in operation["responses"].items()
        if status >= "400"
    }
    lines += table(("status", "when"), sorted(told.items()))
    return "\n".join(lines).rstrip() + "\n"


def route(method: str, path: str, operation: dict[str, Any], schemas: Schemas) -> list[str]:
    """Return the lines of one route."""
    lines = [f"### {method} {path}", "", operation["description"], ""]
    if parameters := operation.get("parameters"):
        rows = [
            (f"`{each['name']}`", each["in"], kind(each["schema"]), default(each["schema"]),
             each.get("description", ""))
            for each in parameters
        ]  # fmt: skip
        lines += table(("parameter", "in", "type", "default", ""), rows)
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        reference = content["schema"].get("$ref", "").rpartition("/")[2]
        if reference in STOCK:
            lines += ["Body: as vLLM's, and", ""]
            lines += fields(schemas[reference], schemas, ADDED)
        else:
            lines += [f"Body: `{media}`, {kind(content['schema'])}.", ""]
    answers = [
        (status, ", ".join(_told(media, each) for media, each in answer.get("content", {}).items()))
        for status, answer in operation["responses"].items()
        if status < "400"
    ]
    lines += table(("answer", "of"), answers)
    errors = [status for status in operation["responses"] if status >= "400"]
    return [*lines, f"[Errors](#errors): {', '.join(errors)}.", ""]


def fields(schema: Schemas, schemas: Schemas, only: tuple[str, ...] | None = None) -> list[str]:
    """Return a table of an object's fields."""
    required = schema.get("required", ())
    rows = [
        (f"`{name}`", kind(each), "required" if name in required else default(each),
         each.get("description") or _described(each, schemas))
        for name, each in schema["properties"].items()
        if only is None or name in only
    ]  # fmt: skip
    return table(("field", "type", "default", ""), rows)


def kind(schema: Schemas) -> str:
    """Return a type with its bounds in words."""
    if reference := schema.get("$ref"):
        name = titled(reference.rpartition("/")[2])
        return f"[{name}](#{name.lower()})"
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return " or ".join(dict.fromkeys(map(kind, schema[choice])))
    if values := schema.get("enum") or [schema[name] for name in ("const",) if name in schema]:
        return " or ".join(f'`"{value}"`' for value in values)
    type_ = schema.get("type", "anything")
    if type_ == "array":
        return f"list of {kind(schema['items'])}" + bounds(schema, "Items")
    if type_ == "string":
        return "bytes" if schema.get("format") == "binary" else "text" + bounds(schema, "Length")
    named = " or ".join(type_) if isinstance(type_, list) else str(type_)
    return named + bounds(schema, "imum")


def bounds(schema: Schemas, of: str) -> str:
    """Return the least and the most that a schema allows, in words."""
    least, most = schema.get(f"min{of}"), schema.get(f"max{of}")
    unit = {"Items": " entries", "Length": " characters"}.get(of, "")
    above = schema.get("exclusiveMinimum")
    parts = [
        f"above {above:g}" if above is not None else "",
        f"from {least:,.12g}" if least is not None else "",
        f"to {most:,.12g}" if most is not None else "",
    ]
    told = " ".join(part for part in parts if part)
    return f", {told}{unit}" if told else ""


def default(schema: Schemas) -> str:
    """Return what a field is if left out."""
    return f"`{schema['default']!r}`" if "default" in schema else ""


def reached(own: list[tuple[str, str, Any]], schemas: Schemas) -> list[str]:
    """Return the names of the objects that own routes take, in the order in which they come."""
    waiting: list[Any] = []
    for _, _, operation in own:
        for content in operation.get("requestBody", {}).get("content", {}).values():
            name = content["schema"].get("$ref", "").rpartition("/")[2]
            properties = schemas[name]["properties"] if name in STOCK else {}
            waiting += [properties[field] for field in ADDED] if properties else [content["schema"]]
    for _, _, operation in own:
        for status, answer in operation["responses"].items():
            for content in answer.get("content", {}).values() if status < "400" else ():
                schema = content.get("schema", {})
                name = ANSWERS.get(schema.get("$ref", "").rpartition("/")[2])
                waiting.append(schemas[name]["properties"]["distribution"] if name else schema)
    found: list[str] = []
    while waiting:
        for reference in references(waiting.pop(0)):
            name = reference.rpartition("/")[2]
            if name not in found:
                found.append(name)
                waiting.append(schemas[name])
    return found


def references(schema: Any) -> Iterator[str]:
    """Yield the references anywhere in a schema."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield schema["$ref"]
        for each in schema.values():
            yield from references(each)
    elif isinstance(schema, list):
        for each in schema:
            yield from references(each)


def titled(name: str) -> str:
    """Return an object's name without the module that keeps it apart from another."""
    return name.rpartition("__")[2]


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return a Markdown table."""
    cells = [head, ("---",) * len(head), *rows]
    return ["| " + " | ".join(part.replace("|", "\\|") for part in row) + " |" for row in cells] + [
        ""
    ]


def _told(media: str, content: Schemas) -> str:
    """Return a media type, and the object in it if it has one."""
    reference = content.get("schema", {}).get("$ref", "")
    if reference.rpartition("/")[2] in ANSWERS:
        return f"`{media}`: vLLM's, with a [Distribution](#distribution) in each choice"
    return f"`{media}`" + (f": {kind(content['schema'])}" if reference else "")


def _described(schema: Schemas, schemas: Schemas) -> str:
    """Return what the object of a field says of itself."""
    for reference in references(schema):
        return str(schemas[reference.rpartition("/")[2]].get("description", ""))
    return ""


if __name__ == "__main__":
    PAGE.write_text(page(openapi()))
