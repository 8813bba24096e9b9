"""When a server takes requests, and what it says when not."""

from __future__ import annotations

import asyncio

import pytest

from service.engine.readiness import Readiness
from service.errors import NotReadyError

LONG = 3600.0


class StubEngine:
    """Answers, or does not."""

    def __init__(self) -> None:
        self.errored = False
        self.answers = True

    async def is_paused(self) -> bool:
        if not self.answers:
            await asyncio.Event().wait()
        return False


@pytest.fixture
def engine() -> StubEngine:
    return StubEngine()


def code_of(readiness: Readiness) -> str | None:
    try:
        readiness.check()
    except NotReadyError as error:
        return error.code
    return None


async def test_an_engine_that_answers_is_ready(engine: StubEngine) -> None:
    readiness = Readiness(engine, LONG)
    assert code_of(readiness) is None
    readiness.pulse.poll()
    await asyncio.sleep(0)
    assert code_of(readiness) is None


async def test_a_silent_engine_is_not_ready_and_refuses_nobody(engine: StubEngine) -> None:
    engine.answers = False
    readiness = Readiness(engine, LONG)
    readiness.pulse.poll()
    codes = []
    for _ in range(3):
        readiness.pulse._beaten -= 3600  # as if an hour had passed, of which each beat counts 2 s
        readiness.pulse.poll()
        codes.append(code_of(readiness))
    assert codes == [None, None, "engine_silent"]
    readiness.admit()


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
    assert code_of(readiness) == code


async def test_a_hanging_engine_refuses_newcomers(engine: StubEngine) -> None:
    engine.answers = False
    readiness = Readiness(engine, 1e-9)
    readiness.pulse.poll()
    readiness.admit()
    readiness.pulse.poll()
    assert readiness.is_stalled()
    with pytest.raises(NotReadyError, match="has not answered"):
        readiness.admit()
    assert code_of(readiness) == "engine_stalled"


async def test_a_paused_engine_is_not_ready_and_refuses_nobody(engine: StubEngine) -> None:
    readiness = Readiness(engine, LONG)
    readiness.pulse.paused = True
    readiness.admit()
    assert code_of(readiness) == "engine_paused"
