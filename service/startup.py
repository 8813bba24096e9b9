"""The time of each part of a start, in seconds since the process began."""

from __future__ import annotations

import time

import psutil

_passed: dict[str, float] = {}


def passed(part: str) -> None:
    """Record that a part of the start is over."""
    _passed[part] = time.time() - psutil.Process().create_time()


def summary() -> str | None:
    """Return the time of the start so far and of its parts; None if no part was recorded."""
    if not _passed:
        return None
    parts, before = [], 0.0
    for part, at in _passed.items():
        parts.append(f"{part} {at - before:.1f} s")
        before = at
    return f"ready after {before:.1f} s: {', '.join(parts)}"
