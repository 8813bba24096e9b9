"""Readers that are slow, or gone."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import pytest
from prometheus_client import REGISTRY
from starlette.types import Send

from service.access.slow_reader import within


def slow_readers() -> float:
    """Return how many were cut off."""
    count = REGISTRY.get_sample_value("sensefield_slow_readers_total")
    assert count is not None
    return count


async def test_a_reader_that_takes_nothing_ends_what_answers() -> None:
    taken: list[Any] = []
    ended: list[str] = []

    async def send(message: Any) -> None:
        if len(taken) == 2:
            await asyncio.Event().wait()
        taken.append(message)

    async def answer(send: Send) -> None:
        try:
            for at in range(5):
                await send({"at": at})
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    cut_off = slow_readers()
    assert not await within(0.01, send, answer)
    assert len(taken) == 2
    assert ended == ["cancelled"]
    assert slow_readers() == cut_off + 1


async def test_a_reader_in_time_is_served_however_long_the_answer() -> None:
    taken: list[Any] = []

    async def send(message: Any) -> None:
        await asyncio.sleep(0.02)  # a reader's pace: a fifth of what it may take
        taken.append(message)

    async def answer(send: Send) -> None:
        for at in range(20):
            await send({"at": at})

    assert await within(0.1, send, answer)
    assert len(taken) == 20


async def test_a_loop_that_stood_still_blames_no_reader() -> None:
    """The reader takes its piece meanwhile; the loop sees that only when it turns again."""
    seconds = 0.2
    mine, readers = socket.socketpair()
    mine.setblocking(False)
    loop = asyncio.get_running_loop()
    taken: list[Any] = []

    def stand_still() -> None:
        time.sleep(2 * seconds)  # what is tested
        readers.send(b"taken")

    async def send(message: Any) -> None:
        if len(taken) == 1:
            loop.call_soon(stand_still)
            await loop.sock_recv(mine, 8)
        taken.append(message)
        await asyncio.sleep(0)  # the others' turn

    async def answer(send: Send) -> None:
        for at in range(4):
            await send({"at": at})

    with mine, readers:
        assert await within(seconds, send, answer)
    assert len(taken) == 4


async def test_what_answers_may_be_silent_for_longer_than_a_reader() -> None:
    taken: list[Any] = []

    async def send(message: Any) -> None:
        taken.append(message)

    async def answer(send: Send) -> None:
        await send({"at": 0})
        await asyncio.sleep(0.05)  # an engine's pace
        await send({"at": 1})

    assert await within(0.01, send, answer)
    assert len(taken) == 2


async def test_a_message_that_failed_is_not_under_way() -> None:
    async def send(message: Any) -> None:
        raise OSError("closed")

    async def answer(send: Send) -> None:
        with pytest.raises(OSError, match="closed"):
            await send({"at": 0})
        await asyncio.sleep(0.05)  # longer than a reader may take

    assert await within(0.01, send, answer)


async def test_a_timeout_of_what_answers_is_not_the_readers() -> None:
    async def send(_message: Any) -> None: ...

    async def answer(send: Send) -> None:
        raise TimeoutError("the engine's")

    cut_off = slow_readers()
    with pytest.raises(TimeoutError, match="the engine's"):
        await within(60, send, answer)
    assert slow_readers() == cut_off
