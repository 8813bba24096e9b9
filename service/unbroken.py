"""Tasks that run to their end even if the caller that waits for them is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")
_GOING: set[asyncio.Task[Any]] = set()
"""The running tasks: the event loop itself holds only weak references to them."""


def begin(work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
    """Start a task; the caller may wait for it or not."""
    task = asyncio.create_task(work)
    _GOING.add(task)
    task.add_done_callback(_end)
    return task


async def unbroken(work: Coroutine[Any, Any, _T]) -> _T:
    """Wait for a task, which goes on if the wait is cancelled; raise its exception."""
    return await asyncio.shield(begin(work))


def _end(task: asyncio.Task[Any]) -> None:
    _GOING.discard(task)
    if not task.cancelled():
        task.exception()  # mark it as retrieved: the caller may have been cancelled
