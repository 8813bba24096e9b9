"""pydantic's errors as one error: the field's path, the fault, the value."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from logit_processors.checks import ControlError
from service.api.unions import Located, meant
from service.errors import MAX_ECHO, BadRequestError, echo
from service.json_path import json_path, steps_in

MAX_ERRORS = 10
"""Most errors listed in one message."""


def from_validation(errors: Iterable[Mapping[str, Any] | str], body: Any = None) -> BadRequestError:
    """Return pydantic's errors as one error: ``param`` is the first path, ten are listed.

    Args:
        errors: pydantic's errors.
        body: the validated JSON, if it is at hand.

    """
    listed = list(errors)
    located = [_located(each, body) for each in listed if not isinstance(each, str)]
    messages: dict[tuple[str, str], str] = {}
    left = MAX_ECHO
    for each in meant(located):
        path, message = _worded(each)
        if (path, message) not in messages:
            shown = _shown(each.error.get("input"), left) if len(messages) < MAX_ERRORS else ""
            left -= len(shown)
            messages[path, message] = message + (f" (got {shown})" if shown else "")
    messages |= {("", text): text[:MAX_ECHO] for text in listed if isinstance(text, str)}
    return _joined(messages)


def _joined(messages: Mapping[tuple[str, str], str]) -> BadRequestError:
    paths = [path or None for path, _ in messages]
    first = next(iter(paths), None)
    # The first path is the error's ``param``.
    words = [
        f"{path}: {message}" if at and path else message
        for at, (path, message) in enumerate(zip(paths, messages.values(), strict=True))
    ][:MAX_ERRORS]
    if len(messages) > MAX_ERRORS:
        words.append(f"and {len(messages) - MAX_ERRORS} more")
    return BadRequestError("; ".join(words), first)


def _located(error: Mapping[str, Any], body: Any) -> Located:
    where, *rest = error["loc"] or ("body",)
    steps = [(part, True) for part in rest]
    if where == "body" and body is not None:
        is_missing = error["type"] == "missing"
        rest = [*_list_of(body, rest, error.get("input"), is_missing), *rest]
        steps = list(steps_in(body, rest, lacks_last=is_missing))
    return Located(((where, True), *steps), error)


def _list_of(
    body: Any, location: Sequence[str | int], value: object, is_missing: bool
) -> tuple[str | int, ...]:
    """Return the path of the list in which a location begins: vLLM validates some lists alone.

    Args:
        body: the JSON object.
        location: an error's location; it begins in a list if its first part is a number.
        value: the bad value.
        is_missing: whether the value lacks the location's last part.

    """
    is_begun = not (isinstance(body, dict) and location and isinstance(location[0], int))
    waiting: list[tuple[tuple[str | int, ...], Any]] = [] if is_begun else [((), body)]
    while waiting:
        path, node = waiting.pop()
        if isinstance(node, list) and _holds(node, location, value, is_missing):
            return path
        members = node.items() if isinstance(node, dict) else enumerate(node)
        inner = [((*path, name), each) for name, each in members if isinstance(each, dict | list)]
        waiting += reversed(inner)
    return ()


def _holds(node: Any, location: Sequence[str | int], value: object, is_missing: bool) -> bool:
    steps = list(steps_in(node, location, lacks_last=is_missing))
    parts = [part for part, is_in in steps if is_in]
    if not steps[0][1]:
        return False
    for part in parts[:-1] if is_missing else parts:
        node = node[part]
    return bool(node == value)


def _worded(each: Located) -> tuple[str, str]:
    """Return the path and the message."""
    cause = (each.error.get("ctx") or {}).get("error")
    if isinstance(cause, ControlError):
        path = json_path(each.path)
        return (cause.param if path == "body" else f"{path}.{cause.param}"), cause.message
    if each.error["type"] == "iterable_type":
        return json_path(each.path), "Input should be a valid list"
    message = str(each.error["msg"]).removeprefix("Value error, ")
    return json_path(each.path), message[:MAX_ECHO]


def _shown(value: object, room: int) -> str:
    """Return a scalar value for the message, "" if there is no room."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, list | dict) or room <= 1:
        return ""
    return echo(value, room)
