"""Vectors that are made, read, replaced and deleted while requests steer along them."""

from __future__ import annotations

import json
import struct
from typing import Any

from loadtests.storm.draw import WORDS, Draw
from loadtests.storm.shot import Shot
from loadtests.storm.target import PREFIX, Target

DIRECTIONS = tuple(f"{PREFIX}direction-{which}" for which in ("kept", "replaced", "deleted"))
"""Vectors in logit space."""
STREAMS = tuple(f"{PREFIX}stream-{which}" for which in ("kept", "replaced", "deleted"))
"""Vectors of the residual stream, all with the same layers."""
NAMES = (*DIRECTIONS, *STREAMS)
DELETED = frozenset(name for name in NAMES if name.endswith("deleted"))
MADE = f"{PREFIX}made"
"""Takes the vectors that no request steers along."""
CHANGED = (*(name for name in NAMES if not name.endswith("kept")), MADE)
_PATH = "/v1/vectors"
_GONE = frozenset({404})


def first_vectors(target: Target) -> list[Shot]:
    """Return the uploads without which no request could steer."""
    draw = Draw(0, 0)
    return [_put(draw, target, at, name) for at, name in enumerate(NAMES)]


def last_deletions() -> list[Shot]:
    """Return the requests that take all of the storm's vectors away."""
    names = (*NAMES, MADE, f"{PREFIX}first")
    return [
        Shot(at, f"{_PATH}/{name}", None, "DELETE", allowed=_GONE) for at, name in enumerate(names)
    ]


def vector_shot(draw: Draw, target: Target, number: int) -> Shot:
    """Return a request to the vectors' routes."""
    kind = draw.weighted({"put": 4, "make": 3, "delete": 2, "read": 3})
    if kind == "put":
        return _put(draw, target, number, draw.one_of(CHANGED[:-1]))
    if kind == "make":
        return _make(draw, target, number)
    if kind == "delete":
        name = draw.one_of(sorted(DELETED))
        return Shot(number, f"{_PATH}/{name}", None, "DELETE", allowed=_GONE)
    name = draw.one_of(NAMES)
    what = draw.one_of(["", "?k=3", "/nearest?k=5", "/content", "/content?format=gguf"])
    if "gguf" in what and name not in STREAMS:
        what = "/content"
    return Shot(number, f"{_PATH}/{name}{what}", None, "GET", allowed=_GONE)


def _put(draw: Draw, target: Target, number: int, name: str) -> Shot:
    names = [f"layer.{at}" for at in target.carried] if name in STREAMS else ["direction"]
    file = _file(names, [_values(draw, target) for _ in names])
    headers = {"content-type": "application/octet-stream"}
    return Shot(number, f"{_PATH}/{name}", file, "PUT", headers)


def _values(draw: Draw, target: Target) -> list[float]:
    return [draw.number(-1, 1) for _ in range(target.hidden_size)]


def _file(names: list[str], tensors: list[list[float]]) -> bytes:
    """Return a safetensors file of tensors of one length."""
    size = 4 * len(tensors[0])
    header = {
        name: {"dtype": "F32", "shape": [size // 4], "data_offsets": [at * size, (at + 1) * size]}
        for at, name in enumerate(names)
    }
    text = json.dumps(header).encode()
    data = b"".join(struct.pack(f"<{size // 4}f", *tensor) for tensor in tensors)
    return struct.pack("<Q", len(text)) + text + data


def _make(draw: Draw, target: Target, number: int) -> Shot:
    source: dict[str, Any] = draw.one_of(
        [
            {"text": f" {draw.words(2)}"},
            {"text": f" {draw.words(1)}", "space": "embedding"},
            {"contrast": _contrast(draw, target)},
            {"combine": [{"vector": name, "weight": draw.number(0.5, 2)} for name in DIRECTIONS]},
            {"combine": [{"vector": STREAMS[0]}, {"vector": STREAMS[1], "weight": 0.5}]},
        ]
    )
    body = {"name": MADE, "from": source, "replace": True}
    body |= draw.fields(0.4, {"stream": lambda: True})
    return Shot(number, _PATH, body, allowed=_GONE)


def _contrast(draw: Draw, target: Target) -> dict[str, Any]:
    pairs = draw.integer(1, 4)
    # Last words that differ, or the sides could be the same vectors.
    one, other = WORDS[: len(WORDS) // 2], WORDS[len(WORDS) // 2 :]
    sides: dict[str, Any] = {
        "positive": [f"{draw.words(8)} {draw.one_of(one)}" for _ in range(pairs)],
        "negative": [f"{draw.words(8)} {draw.one_of(other)}" for _ in range(pairs)],
    }
    more = {"layers": lambda: target.carried, "last": lambda: draw.integer(1, 4)}
    return sides | draw.fields(0.5, more)
