"""Calls that wait for one another."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from service.vectors.turns import SerializedRpc


class Engine:
    """Answers a call when it is told to."""

    def __init__(self) -> None:
        self.waiting: list[tuple[str, asyncio.Future[list[Any]]]] = []

    async def collective_rpc(self, method: str, timeout: None, args: tuple[Any, ...]) -> list[Any]:
        assert timeout is None
        answer: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self.waiting.append((f"{method}{args}", answer))
        return await answer


async def settle() -> None:
    """Let every task go as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_one_call_is_at_work_at_a_time() -> None:
    engine = Engine()
    calls = SerializedRpc(engine)
    first, left, last = (
        asyncio.create_task(calls.collective_rpc("read", None, (at,))) for at in range(3)
    )
    await settle()
    assert [name for name, _ in engine.waiting] == ["read(0,)"]
    left.cancel()
    engine.waiting[0][1].set_result(["a"])
    await settle()
    # Whoever has left meanwhile is not asked for.
    assert [name for name, _ in engine.waiting] == ["read(0,)", "read(2,)"]
    engine.waiting[1][1].set_exception(ValueError("no"))
    assert await first == ["a"]
    with pytest.raises(ValueError, match="no"):
        await last
    following = asyncio.create_task(calls.collective_rpc("read", None, (3,)))
    await settle()
    engine.waiting[2][1].set_result(["d"])
    assert await following == ["d"]
