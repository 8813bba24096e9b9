"""JSON paths for error messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

UNION_TAGS = ("<text>", "<chat>", "<tokens>")
"""pydantic's names of union members, which stand in its locations but not in the JSON."""
MAX_NAME = 40
"""Characters of one unknown field's name."""


def json_path(location: Iterable[str | int]) -> str:
    """Return ``logit_control.bias[3].add`` for pydantic's ``("body", "logit_control", …)``."""
    path = ""
    for at, part in enumerate(location):
        if at == 0 and part == "body":
            continue
        if isinstance(part, str) and part in UNION_TAGS:
            continue
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            # The name of an unknown field is the client's own.
            name = part if len(part) <= MAX_NAME else part[:MAX_NAME] + "…"
            path += f".{name}" if path else name
    return path or "body"


def parts_in(
    body: Any, location: Iterable[str | int], *, lacks_last: bool = True
) -> Iterator[str | int]:
    """Yield the parts of pydantic's location that exist in a JSON body.

    pydantic's location also has names of union members in between.

    Args:
        body: the JSON.
        location: pydantic's, without what it is in.
        lacks_last: whether the last part may be a field that is not there.

    """
    for part, is_in in steps_in(body, location, lacks_last=lacks_last):
        if is_in:
            yield part


def steps_in(
    body: Any, location: Iterable[str | int], *, lacks_last: bool = True
) -> Iterator[tuple[str | int, bool]]:
    """Yield the parts of a location as :func:`parts_in`, the names of kinds too.

    Yields:
        Each part, and whether it is of the body.

    """
    parts = list(location)
    for at, part in enumerate(parts):
        is_item = isinstance(body, list) and isinstance(part, int) and part < len(body)
        if is_item or (isinstance(body, dict) and part in body):
            body = body[part]
            yield part, True
        else:
            yield part, lacks_last and at == len(parts) - 1 and isinstance(body, dict)
