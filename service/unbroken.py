"""Work that goes on to its end when whoever waits for it is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")
_GOING: set[asyncio.Task[Any]] = set()
"""The event loop itself holds its tasks by weak references only."""


def begin(work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
    """Begin work that somebody may wait for, or nobody."""
    task = asyncio.create_task(work)
    _GOING.add(task)
    task.add_done_callback(_end)
    return task


async def unbroken(work: Coroutine[Any, Any, _T]) -> _T:
    """Wait for work, which a cancelled wait leaves going; raises what the work raises."""
    return await asyncio.shield(begin(work))


def _end(task: asyncio.Task[Any]) -> None:
    _GOING.discard(task)
    if not task.cancelled():
        task.exception()  # taken down as seen: nobody may be waiting any more
