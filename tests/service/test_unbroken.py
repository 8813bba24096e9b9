"""Work that is waited for, cancelled while waited for, and not waited for at all."""

from __future__ import annotations

import asyncio

import pytest

from service.unbroken import begin, unbroken


async def test_it_returns_and_raises_what_the_work_does() -> None:
    async def divide(by: int) -> float:
        await asyncio.sleep(0)
        return 1 / by

    assert await unbroken(divide(2)) == 0.5
    with pytest.raises(ZeroDivisionError):
        await unbroken(divide(0))


async def test_a_cancelled_wait_leaves_the_work_going() -> None:
    begun, may_end, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        await may_end.wait()
        ended.set()

    waiting = asyncio.create_task(unbroken(work()))
    await begun.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not ended.is_set()
    may_end.set()
    await asyncio.wait_for(ended.wait(), 5)


async def test_a_failure_that_nobody_waits_for_is_nobodys() -> None:
    said: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: said.append(context))

    async def fail() -> None:
        raise KeyError("x")

    task = begin(fail())
    await asyncio.wait([task])
    del task
    await asyncio.sleep(0)
    assert said == []
