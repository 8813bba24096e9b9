"""Waiting for a condition, never for a time: it is looked at again and again until it holds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

PATIENCE_SECONDS = 120
"""Longest wait for anything: on a busy machine seconds say nothing."""
_BETWEEN_SECONDS = 0.02
"""From one look to the next."""


def wait_for(
    condition: Callable[[], bool],
    what: str = "a condition to hold",
    seconds: float = PATIENCE_SECONDS,
) -> None:
    """Return once a condition holds; TimeoutError names ``what`` never came."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(_BETWEEN_SECONDS)


async def until(
    condition: Callable[[], bool | Awaitable[bool]], what: str = "a condition to hold"
) -> None:
    """Return once a condition holds, which may be awaited; TimeoutError as above."""

    async def holds() -> bool:
        found = condition()
        return found if isinstance(found, bool) else await found

    deadline = time.monotonic() + PATIENCE_SECONDS
    while not await holds():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        await asyncio.sleep(_BETWEEN_SECONDS)
