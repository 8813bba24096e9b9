"""Detects an engine that has died or hangs, and ends all its requests.

vLLM's engine answers a call between two steps, even if many requests wait. So an engine under
load answers, and a hanging one does not.
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
"""Most seconds counted between two polls, so that a blocked event loop is not counted."""


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
    """Polls an engine with ``is_paused``, one call at a time."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._question: asyncio.Future[bool] | None = None
        self._beaten = 0.0
        self._waited = 0.0
        self._engines = engines_beside()
        self.paused = False

    def is_dead(self) -> bool:
        """Say whether the engine, or one of several, has ended.

        vLLM's client knows it only for engines that its own process started.
        """
        return self._engine.errored or not all(map(is_alive, self._engines))

    def poll(self) -> None:
        """Read the answer to the last call if it has arrived, and then make the next call."""
        now = time.monotonic()
        passed, self._beaten = now - self._beaten, now
        if self._question is not None:
            if not self._question.done():
                self._waited += min(passed, _AWAKE_SECONDS)
                return
            # Engines of several ranks are paused one by one, and raise an error meanwhile.
            if self._question.exception() is None:
                self.paused = self._question.result()
        self._waited = 0.0
        self._question = asyncio.ensure_future(self._engine.is_paused())

    def unanswered_seconds(self) -> float:
        """Return the seconds for which the current call had waited at the last poll."""
        return 0.0 if self._question is None or self._question.done() else self._waited


async def end_requests(engine: Any, message: str, status: HTTPStatus) -> None:
    """End all requests of this process, on any route, with an error.

    The error is raised like vLLM's own ``EngineDeadError``. The engine aborts the requests as
    soon as it responds again.

    Args:
        engine: vLLM's engine client.
        message: what happened.
        status: 500 for a dead engine; the error then has vLLM's type for a dead engine.

    """
    processor = engine.output_processor
    running = list(processor.request_states)
    is_dead = status == EngineDiedError.http_status
    error = EngineDiedError(message) if is_dead else GracefulHTTPError(message, status)
    processor.propagate_error(error)
    if running:
        with suppress(EngineDeadError):  # a dead engine has nothing to abort
            await engine.abort(running, internal=True)
