"""Size limits of grammars, checked before they are compiled.

:mod:`service.engine.grammar_gate` then measures the cost of compiling them.
"""

from __future__ import annotations

import re
from contextvars import ContextVar
from typing import Any

from service.errors import BadRequestError

MAX_CHARACTERS = {"regex": 4096, "pattern": 4096, "grammar": 64 << 10}
"""Most characters by the name of a field, at any depth of the request."""
MAX_ENTRIES = {"enum": 4096, "choice": 4096, "anyOf": 1024, "properties": 1024}
GRAMMARS = MAX_CHARACTERS.keys() | MAX_ENTRIES.keys()
MAX_REPEATS = 256
"""Repeated and optional parts, each of which may be followed by any other."""
AS_TEXT = ("json", "structural_tag")
"""Fields of ``structured_outputs`` that may hold JSON in a string."""
FIELD: ContextVar[str] = ContextVar("field", default="structured_outputs")
"""The field that the grammar of the running task's request comes from."""
_REPEATS = re.compile(r"[?*+{]")


def check_grammar(field: str, value: Any, path: str) -> None:
    """Refuse a field that makes a grammar too large.

    Args:
        field: its name, one of GRAMMARS.
        value: its value; a wrong type is left to the route.
        path: its JSON path.

    Raises:
        BadRequestError: the grammar is too large.

    """
    if field in MAX_CHARACTERS and isinstance(value, str):
        _check_most(len(value), MAX_CHARACTERS[field], "characters", path)
        _check_most(len(_REPEATS.findall(value)), MAX_REPEATS, "of ?, *, + and {", path)
    elif field in MAX_ENTRIES and isinstance(value, list | dict):
        _check_most(len(value), MAX_ENTRIES[field], "entries", path)


def grammar_field(body: dict[str, Any]) -> str:
    """Return the field that holds the grammar of a request to any route."""
    choice = body.get("tool_choice")
    kind = choice.get("type") if isinstance(choice, dict) else choice
    if body.get("tools") and kind not in (None, "auto", "none"):
        return "tools"
    for field in ("structured_outputs", "response_format"):
        if body.get(field) is not None:
            return field
    for field in ("text", "output_config"):
        holder = body.get(field)
        if isinstance(holder, dict) and holder.get("format") is not None:
            return f"{field}.format"
    return "tools" if body.get("tools") else "structured_outputs"


def _check_most(count: int, most: int, what: str, path: str) -> None:
    if count > most:
        raise BadRequestError(f"{count} {what} are too many; allowed: {most}", path)
