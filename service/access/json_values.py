"""Values that no JSON body may hold, on any route; they are refused before the body is validated.

Python's JSON parser accepts NaN, infinities and lone surrogates. Later code would fail on them
where the field is not known any more.
"""

from __future__ import annotations

import json
from math import isfinite
from typing import Any

import orjson

from service.access.grammars import GRAMMARS, check_grammar
from service.access.large_bodies import LARGE
from service.errors import MAX_ECHO, BadRequestError
from service.json_path import json_path

MAX_VALUES = 1 << 15
"""Most values in a body, without lists of token ids: each bad value makes several errors."""
MAX_DEPTH = 100
"""Deepest nesting of lists and objects; later code walks them by recursion."""
_INT64 = 1 << 63
_MAX_DIGITS = 21
"""A sign and 20 digits: more than any 64-bit integer has."""
_TOKENS = frozenset({"prompt", "tokens", "token_ids", "prompt_token_ids", "continuations"})
Path = tuple[Any, ...]
"""Nested: a path and the part below it; () is the whole body."""


def parse(data: bytes, path: str = "body") -> dict[str, Any]:
    """Parse a JSON object: the body, or a string at a JSON path.

    Raises:
        BadRequestError: the data is not a JSON object.

    """
    try:
        body = _parsed(data)
    except RecursionError:
        raise BadRequestError(f"nested deeper than {MAX_DEPTH}", path) from None
    except ValueError as error:
        raise BadRequestError(f"is no JSON: {error}", path) from None
    if not isinstance(body, dict):
        raise BadRequestError("allowed: a JSON object", path)
    return body


def _parsed(data: bytes) -> Any:
    if len(data) > LARGE:
        try:
            return orjson.loads(data)  # in half the time
        except orjson.JSONDecodeError:
            pass  # orjson refuses more than json does, and gives less of a reason
    try:
        return json.loads(data)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except ValueError:
        # Python does not parse an integer of thousands of digits. Cut to 21 it is still beyond
        # 64 bits, so that check_values refuses it and names its field.
        return json.loads(data, parse_int=lambda digits: int(digits[:_MAX_DIGITS]))


def check_values(body: Any, path: Path = ()) -> None:
    """Refuse values that later code cannot represent; ``path`` is the JSON path of the body.

    Raises:
        BadRequestError: an integer beyond 64 bits, a float that is not finite, a text with a
            NUL or half a surrogate pair, a list or object too deep, a grammar too large, more
            values than a request has.

    """
    waiting: list[tuple[Any, Path, int]] = [(body, path, 0)]
    room = MAX_VALUES
    while waiting:
        value, path, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise BadRequestError(f"nested deeper than {MAX_DEPTH}", path_text(path))
        if isinstance(value, list) and _are_tokens(value, path):
            continue
        if isinstance(value, dict | list):
            room -= len(value)
            if room < 0:
                raise BadRequestError(
                    f"the body has too many values; allowed: {MAX_VALUES} beside lists of tokens",
                    path_text(path),
                )
        if isinstance(value, dict):
            for key, below in value.items():
                _check_text(key, path)
                if key in GRAMMARS:
                    check_grammar(key, below, path_text((path, key)))
                waiting.append((below, (path, key), depth + 1))
        elif isinstance(value, list):
            waiting += ((below, (path, at), depth + 1) for at, below in enumerate(value))
        elif isinstance(value, str):
            _check_text(value, path)
        elif isinstance(value, int) and not -_INT64 <= value < _INT64:
            raise BadRequestError("allowed: integers of 64 bits", path_text(path))
        elif isinstance(value, float) and not isfinite(value):
            raise BadRequestError(f"{value} is not finite", path_text(path))


def _are_tokens(value: list[Any], path: Path) -> bool:
    """Say whether a list holds token ids, in a field that may be as long as a prompt."""
    while path and isinstance(path[1], int):
        path = path[0]
    if not (path and path[1] in _TOKENS):
        return False
    return set(map(type, value)) == {int} and min(value) >= 0 and max(value) < _INT64


def _check_text(text: str, path: Path) -> None:
    if "\0" in text:
        raise BadRequestError("a NUL character is in the text", path_text(path))
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise BadRequestError("half a surrogate pair is in the text", path_text(path)) from None


def path_text(path: Path) -> str:
    """Return a path as clients write it, shortened if it is long."""
    parts: list[str | int] = []
    while path:
        path, part = path
        parts.append(part)
    text = json_path(reversed(parts))
    return text if len(text) <= MAX_ECHO else text[:MAX_ECHO] + "…"
