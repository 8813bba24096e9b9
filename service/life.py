"""The server's life cycle: a hanging engine, a dead engine, and an orderly end.

After SIGTERM or SIGINT the server refuses new requests, finishes the accepted ones, and exits
with 0. After its engine has died it ends every request with an error and exits with 1, for a
supervisor to start a new server.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from service.engine.pulse import end_requests
from service.engine.readiness import Readiness

_TICK_SECONDS = 0.25
_BEATS_EVERY = 4
"""Ticks between two polls of the engine; each poll delays its running requests."""
_FLUSH_SECONDS = 2.0
"""Time to send the errors of aborted requests."""
_DEAD = HTTPStatus.INTERNAL_SERVER_ERROR
_log = logging.getLogger("vllm.sensefield")


class Life:
    """Supervises one server process.

    Args:
        engine: vLLM's engine client.
        state: the application's, where vLLM leaves its HTTP server.
        readiness: updated with the engine's state.
        drain_seconds: time for accepted requests to finish after SIGTERM or SIGINT.

    """

    def __init__(
        self,
        engine: Any,
        state: Any,
        readiness: Readiness,
        drain_seconds: float,
    ) -> None:
        self._engine = engine
        self._state = state
        self._readiness = readiness
        self._was_stalled = False
        self._drain_seconds = drain_seconds

    async def run(self) -> None:
        """Watch until the server stops.

        Raises:
            SystemExit: with 1, once the engine is dead and its requests have ended.

        """
        await _until(lambda: hasattr(self._state, "server") and self._state.server.started)
        self._state.server.config.timeout_graceful_shutdown = int(_FLUSH_SECONDS)
        for number in (signal.SIGTERM, signal.SIGINT):
            # These replace vLLM's handlers, which stop the engine before the requests end.
            asyncio.get_running_loop().add_signal_handler(number, self._stop)
        ticks = 0
        while not (self._readiness.draining or self._is_dead()):
            if ticks % _BEATS_EVERY == 0:
                await self._watch()
            ticks += 1
            await asyncio.sleep(_TICK_SECONDS)
        if not self._is_dead():
            await self._drain()
        if self._is_dead():
            _log.error("the engine has died; the server ends")
            await end_requests(self._engine, "the engine has died", _DEAD)
            await _until(self._is_idle, _FLUSH_SECONDS)
            raise SystemExit(1)
        # vLLM then stops the idle engine.
        self._state.server.should_exit = True

    def _stop(self) -> None:
        self._readiness.draining = True

    async def _watch(self) -> None:
        pulse = self._readiness.pulse
        pulse.poll()
        stalled = self._readiness.is_stalled()
        message = f"the engine has not answered for {pulse.unanswered_seconds():.0f} s"
        if stalled and not self._was_stalled:
            _log.error(message)
        elif self._was_stalled and not stalled:
            _log.warning("the engine answers again")
        self._was_stalled = stalled
        if stalled:
            # Repeated: requests admitted since the last check hang too.
            await end_requests(self._engine, message, HTTPStatus.GATEWAY_TIMEOUT)

    async def _drain(self) -> None:
        """Let the accepted requests finish; end the others with an error after the time limit."""
        seconds = 0.0 if self._readiness.is_stalled() else self._drain_seconds
        _log.info("stopping: accepted requests get %g s, newcomers a 503", seconds)
        await _until(lambda: self._is_idle() or self._is_dead(), seconds)
        if not (self._is_idle() or self._is_dead()):
            message = "the server is shutting down"
            await end_requests(self._engine, message, HTTPStatus.SERVICE_UNAVAILABLE)
            await _until(self._is_idle, _FLUSH_SECONDS)

    def _is_dead(self) -> bool:
        return self._readiness.pulse.is_dead()

    def _is_idle(self) -> bool:
        """Say whether no HTTP request is being answered."""
        return not self._state.server.server_state.tasks


async def _until(condition: Callable[[], bool], seconds: float = float("inf")) -> None:
    """Return when a condition holds, or after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        await asyncio.sleep(_TICK_SECONDS / 5)
