"""Where the time of a start went: the points that the process passed, in seconds of its life."""

from __future__ import annotations

import time

import psutil

_passed: dict[str, float] = {}


def passed(part: str) -> None:
    """Note that a part of the start is over."""
    _passed[part] = time.time() - psutil.Process().create_time()


def summary() -> str | None:
    """Return the time of the start so far and of its parts, None in a process that noted none."""
    if not _passed:
        return None
    parts, before = [], 0.0
    for part, at in _passed.items():
        parts.append(f"{part} {at - before:.1f} s")
        before = at
    return f"ready after {before:.1f} s: {', '.join(parts)}"
