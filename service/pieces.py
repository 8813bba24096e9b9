"""Large answers, encoded in pieces for a few milliseconds at a time.

Encoding JSON blocks the event loop, which serves all other requests. A thread would hold the
interpreter for the length of one call, and so block the loop as well.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import orjson

PIECE = 64 << 10
"""Bytes from which pieces are no longer joined."""
_SLICE_SECONDS = 0.003
_HOLE = f"later-{secrets.token_hex(16)}"
"""Placeholder for a value that is encoded later; no other text can be equal to it."""
_TURNS: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()
"""A lock per event loop: between two turns of the loop one slice of one answer is encoded."""


class Later:
    """A value of an answer whose JSON is encoded later, in pieces.

    An empty piece only lets other tasks run.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.pieces = pieces


def json_pieces(value: Any) -> Iterator[bytes]:
    """Yield a value as JSON, each :class:`Later` in it in pieces.

    Raises:
        TypeError: JSON cannot hold a value.

    """
    later: list[Later] = []

    def hole(found: Any) -> str:
        if not isinstance(found, Later):
            raise TypeError(f"{type(found).__name__} has no form in JSON")
        later.append(found)
        return _HOLE

    outline = orjson.dumps(value, default=hole, option=orjson.OPT_NON_STR_KEYS)
    first, *rest = outline.split(orjson.dumps(_HOLE))
    yield first
    for found, text in zip(later, rest, strict=True):
        yield from found.pieces
        yield text


def json_list(values: Iterable[Any]) -> Iterator[bytes]:
    """Yield a list as JSON, value by value."""
    before = b"["
    for value in values:
        yield before
        yield from json_pieces(value)
        before = b","
    yield b"[]" if before == b"[" else b"]"


async def in_slices(pieces: Iterator[bytes]) -> list[bytes]:
    """Return all pieces, small ones joined; the event loop runs between slices of them."""
    made: list[bytes] = []
    # A short answer does not wait for the lock of long ones.
    if _take(pieces, made):
        return made
    turn = _TURNS.setdefault(asyncio.get_running_loop(), asyncio.Lock())
    while True:
        async with turn:
            await asyncio.sleep(0)
            if _take(pieces, made):
                return made


def _take(pieces: Iterator[bytes], made: list[bytes]) -> bool:
    """Add the pieces of one slice; return whether they were the last."""
    until = time.perf_counter() + _SLICE_SECONDS
    waiting: list[bytes] = []
    size = 0
    ended = True
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= PIECE:
            made.append(b"".join(waiting))
            waiting, size = [], 0
        if time.perf_counter() > until:
            ended = False
            break
    if size:
        made.append(b"".join(waiting))
    return ended
