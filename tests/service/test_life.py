"""The course of a server's life, with the signals of a real event loop."""

from __future__ import annotations

import asyncio
import os
import signal
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

import pytest

from service import life as module
from service.engine.readiness import Readiness
from service.life import Life
from tests.waiting import until

LONG = 3600.0


class StubEngine:
    """An engine that answers, hangs or dies."""

    def __init__(self) -> None:
        self.errored = False
        self.answers = True
        self.output_processor = self
        self.request_states = {"one": None}
        self.told: list[tuple[str, HTTPStatus]] = []
        self.aborted: list[str] = []

    async def is_paused(self) -> bool:
        while not self.answers:
            await asyncio.sleep(0)
        return False

    def propagate_error(self, error: Any) -> None:
        self.told.append((str(error), error.http_status))

    async def abort(self, ids: list[str], internal: bool) -> None:
        self.aborted += ids


class Server:
    """What of uvicorn's server a life looks at."""

    def __init__(self) -> None:
        self.started = True
        self.should_exit = False
        self.config = SimpleNamespace(timeout_graceful_shutdown=None)
        self.server_state = SimpleNamespace(tasks=set())


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TICK_SECONDS", 0.005)
    monkeypatch.setattr(module, "_FLUSH_SECONDS", 0.01)


@pytest.fixture
def engine() -> StubEngine:
    return StubEngine()


@pytest.fixture
def server() -> Server:
    return Server()


def begin(engine: StubEngine, server: Server, stall: float = LONG, drain: float = LONG) -> Any:
    """Return the readiness of a server and the task of its life."""
    readiness = Readiness(engine, stall)
    life = Life(engine, SimpleNamespace(server=server), readiness, drain)
    return readiness, asyncio.create_task(life.run())


async def stop(server: Server) -> None:
    """Send the signal once there is somebody to take it."""
    await until(lambda: server.config.timeout_graceful_shutdown is not None)
    os.kill(os.getpid(), signal.SIGTERM)


async def test_a_stop_waits_for_what_was_accepted(engine: StubEngine, server: Server) -> None:
    server.server_state.tasks = {"a request"}
    readiness, task = begin(engine, server)
    await stop(server)
    await until(lambda: readiness.draining)
    assert not server.should_exit
    server.server_state.tasks.clear()
    await task
    assert server.should_exit
    assert engine.told == []


async def test_what_does_not_finish_in_time_is_ended(engine: StubEngine, server: Server) -> None:
    server.server_state.tasks = {"a request"}
    _, task = begin(engine, server, drain=0.01)
    await stop(server)
    await task
    assert [status for _, status in engine.told] == [503]
    assert engine.aborted == ["one"]
    assert server.should_exit


async def test_a_stalled_engine_ends_requests_until_it_answers(
    engine: StubEngine, server: Server
) -> None:
    engine.answers = False
    readiness, task = begin(engine, server, stall=0.02)
    await until(lambda: len(engine.told) >= 2)  # also those that came in between
    assert readiness.is_stalled()
    assert engine.told[0] == ("the engine has not answered for 0 s", 504)
    engine.answers = True
    await until(lambda: not readiness.is_stalled())
    await stop(server)
    await task


async def test_a_stalled_engine_is_not_waited_for(engine: StubEngine, server: Server) -> None:
    engine.answers = False
    server.server_state.tasks = {"a request"}
    readiness, task = begin(engine, server, stall=0.01)
    await until(readiness.is_stalled)
    await stop(server)
    await task
    assert server.should_exit


async def test_a_dead_engine_ends_the_process_once_all_know(
    engine: StubEngine, server: Server
) -> None:
    engine.errored = True
    server.server_state.tasks = {"a request"}
    asyncio.get_running_loop().call_later(0.005, server.server_state.tasks.clear)
    life = Life(engine, SimpleNamespace(server=server), Readiness(engine, LONG), LONG)
    with pytest.raises(SystemExit) as ended:
        await life.run()
    assert ended.value.code == 1
    assert server.server_state.tasks == set()
    assert not server.should_exit
