"""Whether the server can take requests now, and what it says where it cannot."""

from __future__ import annotations

from typing import Any

from service.engine.pulse import Pulse
from service.errors import NotReadyError

SILENT_SECONDS = 5.0
"""An engine that owes an answer for as long does not work: it answers between two steps."""


class Readiness:
    """What is known of one server's engine, and of its end.

    Args:
        engine: vLLM's engine client.
        stall_seconds: longest silence of an engine that does not hang.

    """

    def __init__(self, engine: Any, stall_seconds: float) -> None:
        self._stall_seconds = stall_seconds
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

    def check(self) -> None:
        """Return if the engine goes from step to step and the server lets requests in.

        Raises:
            NotReadyError: the engine is paused or silent, or the server lets no request in.

        """
        self.admit()
        if self.pulse.paused:
            raise NotReadyError("the engine is paused", code="engine_paused")
        if self.pulse.silence() > SILENT_SECONDS:
            raise NotReadyError(
                f"the engine has not answered for {self.pulse.silence():.0f} s",
                code="engine_silent",
            )
