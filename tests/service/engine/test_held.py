"""Metrics of the resources that workers hold: read after requests ran, and only then."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import REGISTRY
from vllm.v1.engine.exceptions import EngineDeadError

from service.engine.held import set_metric, watch
from service.metrics import REQUESTS
from tests.waiting import until


class AskedEngine:
    """Says what its workers hold until it has died."""

    def __init__(self) -> None:
        self.output_processor = self
        self.request_states: dict[str, object] = {}
        self.asked = 0
        self.dead = False

    async def collective_rpc(self, method: str, timeout: None, args: tuple[()]) -> list[Any]:
        assert method == "sensefield_held"
        self.asked += 1
        if self.dead:
            raise EngineDeadError
        return [{"programs": self.asked, "pattern_bytes": 7}, {}]


def shown(kind: str) -> float | None:
    return REGISTRY.get_sample_value("sensefield_held", {"kind": kind})


@contextmanager
def watched(engine: AskedEngine) -> Iterator[asyncio.Task[None]]:
    task = asyncio.create_task(watch(engine, every_seconds=0))
    try:
        yield task
    finally:
        task.cancel()


def test_it_shows_the_most_of_any_worker() -> None:
    set_metric([{"programs": 1, "vectors": 3}, {"programs": 2, "vectors": 0}, {}])
    assert (shown("programs"), shown("vectors")) == (2, 3)


async def test_an_idle_server_is_asked_once_after_each_request() -> None:
    engine = AskedEngine()
    with watched(engine):
        await until(lambda: engine.asked == 1, "the first question")
        await turns()
        assert engine.asked == 1
        REQUESTS.labels("chat", "ok").inc()
        await until(lambda: engine.asked == 2, "a question after a request")
        await turns()
        assert engine.asked == 2
        assert (shown("programs"), shown("pattern_bytes")) == (2, 7)


async def test_a_busy_one_is_asked_again_and_once_more_at_the_end() -> None:
    engine = AskedEngine()
    engine.request_states = {"one": object()}
    with watched(engine):
        await until(lambda: engine.asked > 3, "questions while one runs")
        engine.request_states.clear()
        asked = engine.asked
        await until(lambda: engine.asked > asked, "a question after the last")
        asked = engine.asked
        await turns()
        assert engine.asked == asked


async def test_a_dead_engine_is_asked_no_more() -> None:
    engine = AskedEngine()
    engine.dead = True
    with watched(engine) as task:
        await task
    assert engine.asked == 1


async def turns() -> None:
    """Let the event loop turn so often that another question would have been asked."""
    for _ in range(50):
        await asyncio.sleep(0)
