"""Random ``logit_control`` and ``distribution``."""

from __future__ import annotations

from typing import Any

from loadtests.storm.draw import Draw
from loadtests.storm.target import Target
from loadtests.storm.vectors import DIRECTIONS, STREAMS


def control(draw: Draw, target: Target, *, force: bool = True) -> dict[str, Any]:
    """Return control of every kind, each with windows; ``force`` says whether it may force."""
    found = draw.fields(
        0.45,
        {
            "bias": lambda: draw.several(lambda: _bias(draw, target), 8),
            "suppress": lambda: draw.several(lambda: _suppress(draw, target), 8),
            "steer": lambda: draw.several(lambda: _steer(draw, target), 4),
        },
    )
    if force and draw.chance(0.15):
        found["force"] = _force(draw, target)
    return found


def distribution(draw: Draw, target: Target, *, arrow: bool) -> dict[str, Any]:
    """Return a distribution of any form; a wide one has few rows by :func:`is_wide`."""
    wanted = draw.fields(
        0.4,
        {
            "top_k": lambda: draw.one_of([1, 5, 50, 1000, target.vocabulary, "all"]),
            "top_p": lambda: draw.one_of([0.01, 0.5, 0.95, 1.0]),
            "stages": lambda: draw.one_of([["base"], ["controlled"], ["base", "controlled"]]),
            "dtype": lambda: draw.one_of(["float32", "float16"]),
        },
    )
    if arrow:
        wanted |= draw.fields(0.5, {"compression": lambda: draw.one_of(["lz4", "zstd"])})
    else:
        wanted |= draw.fields(0.4, {"encoding": lambda: draw.one_of(["base64", "json"])})
    if not is_wide(wanted) and draw.chance(0.25):
        wanted["prompt"] = True
    return wanted


def is_wide(wanted: dict[str, Any]) -> bool:
    """Say whether a row holds more than some hundred tokens."""
    top_k: int | str = wanted.get("top_k", 20)
    return top_k == "all" or int(top_k) > 500


def _window(draw: Draw, least: int = 0) -> dict[str, Any]:
    start = draw.one_of([0, 1, 2, 7, draw.integer(least, 40)])
    if draw.chance(0.5):
        return {"from": start}
    return {"from": start, "until": start + draw.integer(1, 20)}


def _token_or_text(draw: Draw, target: Target) -> dict[str, Any]:
    entry = draw.fields(0.4, {"when": lambda: _window(draw)})
    if draw.chance(0.4):
        return {"token_id": draw.integer(0, target.vocabulary - 1), **entry}
    text = draw.text() if draw.chance(0.8) else draw.words(30)[:250]
    return {"text": text, **draw.fields(0.3, {"ignore_case": lambda: True}), **entry}


def _bias(draw: Draw, target: Target) -> dict[str, Any]:
    add = draw.one_of([-100, 100, 0, draw.number(-5, 5), draw.number(-5, 5)])
    return {**_token_or_text(draw, target), "add": add}


def _suppress(draw: Draw, target: Target) -> dict[str, Any]:
    return _token_or_text(draw, target)


def _steer(draw: Draw, target: Target) -> dict[str, Any]:
    if draw.chance(0.5):
        strength = draw.one_of([draw.number(-3, 3), draw.number(-3, 3), -1000, 0])
        entry = {"vector": draw.one_of(DIRECTIONS), "strength": strength}
        return entry | draw.fields(0.4, {"when": lambda: _window(draw)})
    strength = draw.one_of([draw.number(-1, 1), draw.number(-1, 1), 10000, 0])
    entry = {"vector": draw.one_of(STREAMS), "strength": strength, "at": "residual"}
    windows = [_window(draw, -40), {"from": None}, {"from": -5, "until": 3}]
    return entry | draw.fields(
        0.4,
        {
            "when": lambda: draw.one_of(windows),
            "layers": lambda: draw.one_of([target.carried, target.carried[:1]]),
        },
    )


def _force(draw: Draw, target: Target) -> dict[str, Any]:
    if draw.chance(0.5):
        return {"text": draw.words(draw.integer(1, 12))}
    # Not the first tokens: among them are those that end a text.
    return {"token_ids": [draw.integer(300, target.vocabulary - 1) for _ in range(5)]}
