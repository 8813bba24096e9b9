"""An engine that is asked whether it turns, and requests that end with an error."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

import pytest
from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
from vllm.exceptions import GracefulHTTPError
from vllm.v1.engine.exceptions import EngineDeadError

from service.engine import pulse as module
from service.engine.pulse import Pulse, end_requests


class AskedEngine:
    """Answers when told to."""

    def __init__(self) -> None:
        self.questions: list[asyncio.Future[bool]] = []

    def is_paused(self) -> asyncio.Future[bool]:
        self.questions.append(asyncio.get_running_loop().create_future())
        return self.questions[-1]


async def test_one_question_at_a_time_and_silence_until_its_answer() -> None:
    engine = AskedEngine()
    pulse = Pulse(engine)
    assert pulse.unanswered_seconds() == 0
    pulse.poll()
    pulse.poll()
    assert len(engine.questions) == 1
    before = pulse.unanswered_seconds()
    pulse.poll()
    assert pulse.unanswered_seconds() > before > 0
    engine.questions[0].set_result(True)
    assert pulse.unanswered_seconds() == 0
    assert not pulse.paused
    pulse.poll()
    assert pulse.paused
    assert len(engine.questions) == 2


async def test_time_in_which_nobody_listened_is_no_silence() -> None:
    pulse = Pulse(AskedEngine())
    pulse.poll()
    for beats in (1, 2, 3):
        pulse._beaten -= 3600  # as after a machine that slept, or a loop that was held up
        pulse.poll()
        assert pulse.unanswered_seconds() == beats * module._AWAKE_SECONDS


async def test_a_refusal_is_an_answer() -> None:
    engine = AskedEngine()
    pulse = Pulse(engine)
    pulse.poll()
    engine.questions[0].set_exception(RuntimeError("the engines differ"))
    assert pulse.unanswered_seconds() == 0
    pulse.poll()
    assert len(engine.questions) == 2
    assert not pulse.paused


class Requests:
    """An output processor with requests, and the engine that is told to let them go."""

    def __init__(self, *ids: str) -> None:
        self.output_processor = self
        self.request_states = dict.fromkeys(ids)
        self.told: list[Exception] = []
        self.aborted: list[tuple[list[str], bool]] = []

    def propagate_error(self, error: Exception) -> None:
        self.told.append(error)

    async def abort(self, ids: list[str], *, internal: bool) -> None:
        self.aborted.append((ids, internal))


@pytest.mark.parametrize(("ids", "aborted"), [(("a", "b"), [(["a", "b"], True)]), ((), [])])
async def test_ended_requests_are_told_and_aborted(ids: tuple[str, ...], aborted: Any) -> None:
    engine = Requests(*ids)
    await end_requests(engine, "it hangs", HTTPStatus.GATEWAY_TIMEOUT)
    (error,) = engine.told
    assert isinstance(error, GracefulHTTPError)
    assert (str(error), error.http_status) == ("it hangs", 504)
    assert engine.aborted == aborted


async def test_a_dead_engine_is_told_as_vllm_tells_it_where_it_knows() -> None:
    engine = Requests("a")
    await end_requests(engine, "the engine has died", HTTPStatus.INTERNAL_SERVER_ERROR)
    (error,) = engine.told
    assert isinstance(error, EngineDeadError)  # which vLLM passes on as it is
    told, stock = create_error_response(error).error, create_error_response(EngineDeadError()).error
    assert (told.type, told.code) == (stock.type, stock.code) == ("InternalServerError", 500)
    assert told.message == "the engine has died"
