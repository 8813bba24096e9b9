"""Whether the server can take requests now, and what it says where it cannot."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from vllm.exceptions import VLLMError

from service.engine.first_step import run_first_step
from service.engine.pulse import Pulse
from service.errors import NotReadyError

FRESH_SECONDS = 5.0
"""Age up to which a token speaks for the engine that made it."""
WAIT_SECONDS = 0.5
"""Longest wait for a token: those who ask give up after a second."""
SILENT_SECONDS = 5.0
"""An engine that owes an answer for as long, and makes no token, does not work."""


class Readiness:
    """What is known of one server's engine, and of its end.

    Args:
        engine: vLLM's engine client.
        stall_seconds: longest silence of an engine that does not hang.

    """

    def __init__(self, engine: Any, stall_seconds: float) -> None:
        self._engine = engine
        self._stall_seconds = stall_seconds
        self._request: asyncio.Task[None] | None = None
        self._answered = time.monotonic()
        self.pulse = Pulse(engine)
        self.draining = False

    def is_stalled(self) -> bool:
        """Say whether the engine hangs."""
        return self.pulse.silence() > self._stall_seconds

    def admit(self) -> None:
        """Let a request in.

        Raises:
            NotReadyError: the server ends, or its engine is dead or hangs.

        """
        if self.draining:
            raise NotReadyError("the server is shutting down", code="draining")
        if self.pulse.is_dead():
            raise NotReadyError("the engine has died; the server ends", code="engine_dead")
        if self.is_stalled():
            raise NotReadyError(
                f"the engine has not answered for {self.pulse.silence():.0f} s",
                code="engine_stalled",
            )

    async def check(self) -> None:
        """Have the engine answer a request of one token, unless it did so a moment ago.

        An engine under load may not come to it; then it is enough that it turns.

        Raises:
            NotReadyError: it does not, or the server would not let a request in.

        """
        self.admit()
        if self.pulse.paused:
            raise NotReadyError("the engine is paused", code="engine_paused")
        if not await self._makes_a_token() and self.pulse.silence() > SILENT_SECONDS:
            raise NotReadyError(
                "the engine has neither made a token nor answered otherwise for "
                f"{self.pulse.silence():.0f} s",
                code="engine_silent",
            )
        self.admit()

    async def _makes_a_token(self) -> bool:
        if time.monotonic() - self._answered <= FRESH_SECONDS:
            return True
        if self._request is None or self._request.done():
            self._request = asyncio.create_task(self._make_a_token())
        await asyncio.wait([self._request], timeout=WAIT_SECONDS)
        return time.monotonic() - self._answered <= FRESH_SECONDS

    async def _make_a_token(self) -> None:
        try:
            await run_first_step(self._engine)
        except VLLMError:  # refused or ended: then there is no token, whatever the reason
            return
        self._answered = time.monotonic()
