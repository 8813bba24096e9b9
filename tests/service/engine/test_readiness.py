"""When a server takes requests, and what it says when not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from http import HTTPStatus
from typing import Any

import pytest
from vllm.exceptions import GracefulHTTPError

from service.engine import readiness as module
from service.engine.readiness import Readiness
from service.errors import NotReadyError

LONG = 3600.0


class StubEngine:
    """Makes tokens and answers, or does not."""

    def __init__(self) -> None:
        self.errored = False
        self.requests = 0
        self.makes_tokens = True
        self.refusal: Exception | None = None
        self.answers = True

    async def generate(self, *args: Any) -> AsyncGenerator[None, None]:
        self.requests += 1
        if self.refusal is not None:
            raise self.refusal
        if not self.makes_tokens:
            await asyncio.Event().wait()
        yield

    async def is_paused(self) -> bool:
        if not self.answers:
            await asyncio.Event().wait()
        return False


@pytest.fixture
def engine() -> StubEngine:
    return StubEngine()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No token of before counts, and none is waited for longer than a moment."""
    monkeypatch.setattr(module, "FRESH_SECONDS", -1.0)
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.001)
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.0)


async def code_of(readiness: Readiness) -> str | None:
    try:
        await readiness.check()
    except NotReadyError as error:
        return error.code
    return None


async def test_a_token_of_a_moment_ago_is_enough(engine: StubEngine) -> None:
    assert await code_of(Readiness(engine, LONG)) is None
    assert engine.requests == 0


async def test_a_token_is_made_where_there_was_none_lately(engine: StubEngine) -> None:
    readiness = Readiness(engine, LONG)
    readiness._answered -= module.FRESH_SECONDS + 1
    assert await code_of(readiness) is None
    assert await code_of(readiness) is None
    assert engine.requests == 1


@pytest.mark.usefixtures("impatient")
async def test_one_that_turns_under_load_is_ready(engine: StubEngine) -> None:
    engine.makes_tokens = False
    readiness = Readiness(engine, LONG)
    readiness.pulse.beat()
    await asyncio.sleep(0)
    assert await code_of(readiness) is None
    assert await code_of(readiness) is None
    assert engine.requests == 1  # the first still waits


@pytest.mark.usefixtures("impatient")
async def test_one_that_neither_makes_tokens_nor_turns_is_not(engine: StubEngine) -> None:
    engine.makes_tokens = engine.answers = False
    readiness = Readiness(engine, LONG)
    readiness.pulse.beat()
    readiness.pulse.beat()
    assert await code_of(readiness) == "engine_silent"


@pytest.mark.usefixtures("impatient")
async def test_a_full_engine_is_asked_again(engine: StubEngine) -> None:
    engine.refusal = GracefulHTTPError("full", HTTPStatus.SERVICE_UNAVAILABLE)
    readiness = Readiness(engine, LONG)
    assert [await code_of(readiness) for _ in range(2)] == [None, None]
    assert engine.requests == 2


@pytest.mark.parametrize(
    ("target", "name", "code"),
    [
        ("readiness", "draining", "draining"),
        ("engine", "errored", "engine_dead"),
    ],
)
async def test_what_refuses_newcomers_is_not_ready(
    engine: StubEngine, target: str, name: str, code: str
) -> None:
    readiness = Readiness(engine, LONG)
    readiness.admit()
    setattr({"readiness": readiness, "engine": engine}[target], name, True)
    with pytest.raises(NotReadyError) as refusal:
        readiness.admit()
    assert (refusal.value.code, refusal.value.status) == (code, 503)
    assert await code_of(readiness) == code


async def test_a_hanging_engine_refuses_newcomers(engine: StubEngine) -> None:
    engine.answers = False
    readiness = Readiness(engine, 1e-9)
    readiness.pulse.beat()
    readiness.admit()
    readiness.pulse.beat()
    assert readiness.is_stalled()
    with pytest.raises(NotReadyError, match="has not answered"):
        readiness.admit()
    assert await code_of(readiness) == "engine_stalled"


async def test_a_paused_engine_is_not_ready_and_refuses_nobody(engine: StubEngine) -> None:
    readiness = Readiness(engine, LONG)
    readiness.pulse.paused = True
    readiness.admit()
    assert await code_of(readiness) == "engine_paused"
