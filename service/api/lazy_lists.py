"""Lists that pydantic validates only when they are iterated, which may happen deep inside vLLM."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

_LAZY = "ValidatorIterator"
"""The type of such a list, which pydantic does not export."""
Path = tuple[str | int, ...]


def reading_lists(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """Return a route's endpoint that validates the lazy lists in its arguments first."""
    if not inspect.iscoroutinefunction(endpoint):
        return endpoint

    @wraps(endpoint)
    async def call(**values: Any) -> Any:
        for value in values.values():
            if isinstance(value, BaseModel):
                read(value)
        return await endpoint(**values)

    return call


def read(value: Any, path: Path = ()) -> Any:
    """Return a value with the lazy lists in it validated.

    Args:
        value: a model, which is changed in place, or a part of one.
        path: its path in the body.

    Raises:
        RequestValidationError: an entry of such a list is wrong.

    """
    if isinstance(value, BaseModel):
        _read_members(value.__dict__, path)
    elif isinstance(value, dict):
        _read_members(value, path)
    elif isinstance(value, list):
        if value and not isinstance(value[0], str | int | float):
            value[:] = [read(each, (*path, at)) for at, each in enumerate(value)]
    elif type(value).__name__ == _LAZY:
        return _listed(value, path)
    return value


def _read_members(members: dict[str, Any], path: Path) -> None:
    for name, value in members.items():
        if (whole := read(value, (*path, name))) is not value:
            members[name] = whole


def _listed(lazy: Any, path: Path) -> list[Any]:
    entries: list[Any] = []
    try:
        for entry in lazy:
            entries.append(read(entry, (*path, len(entries))))
    except ValidationError as error:
        located = [{**each, "loc": ("body", *path, *each["loc"])} for each in error.errors()]
        raise RequestValidationError(located) from None
    return entries
