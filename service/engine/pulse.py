"""Whether the engine lives and turns, and the end of all its requests when it does not.

vLLM's engine answers a question between two steps, however many requests wait for their
turn: that tells an engine under load from one that hangs.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from vllm.exceptions import GracefulHTTPError
from vllm.v1.engine.exceptions import EngineDeadError

from service.engine.family import engines_beside, is_alive

_AWAKE_SECONDS = 2.0
"""Most that counts of the time between two beats: for the rest this process did not listen."""


class EngineDiedError(EngineDeadError):
    """vLLM's error of a dead engine with a message for clients; vLLM's own points at its log."""

    http_status = HTTPStatus.INTERNAL_SERVER_ERROR

    def __init__(self, message: str) -> None:
        super().__init__()
        self._message = message

    def __str__(self) -> str:
        """Return the message."""
        return self._message


class Pulse:
    """Asks an engine whether it is paused, one question at a time."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._question: asyncio.Future[bool] | None = None
        self._beaten = 0.0
        self._waited = 0.0
        self._engines = engines_beside()
        self.paused = False

    def is_dead(self) -> bool:
        """Say whether the engine, or one of several, has ended.

        vLLM's client knows that of engines that its own process started.
        """
        return self._engine.errored or not all(map(is_alive, self._engines))

    def beat(self) -> None:
        """Take the answer to the last question if it has come, and then ask the next."""
        now = time.monotonic()
        passed, self._beaten = now - self._beaten, now
        if self._question is not None:
            if not self._question.done():
                self._waited += min(passed, _AWAKE_SECONDS)
                return
            # Engines of several ranks are paused one after the other, and refuse meanwhile.
            if self._question.exception() is None:
                self.paused = self._question.result()
        self._waited = 0.0
        self._question = asyncio.ensure_future(self._engine.is_paused())

    def silence(self) -> float:
        """Return the seconds for which a question had waited at the last beat."""
        return 0.0 if self._question is None or self._question.done() else self._waited


async def end_requests(engine: Any, message: str, status: HTTPStatus) -> None:
    """End all requests of this process with an error, on whatever route they came.

    The error goes the way of vLLM's own ``EngineDeadError``; the engine lets go of the
    requests as soon as it listens again.

    Args:
        engine: vLLM's engine client.
        message: what happened.
        status: 500 for an engine that has died; the error is then of the type that vLLM itself
            raises for one.

    """
    processor = engine.output_processor
    running = list(processor.request_states)
    is_dead = status == EngineDiedError.http_status
    error = EngineDiedError(message) if is_dead else GracefulHTTPError(message, status)
    processor.propagate_error(error)
    if running:
        with suppress(EngineDeadError):  # then there is nobody to let go of them
            await engine.abort(running, internal=True)
