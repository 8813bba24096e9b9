"""The server's readiness to take requests, and the errors while it is not ready."""

from __future__ import annotations

from typing import Any

from service.engine.pulse import Pulse
from service.errors import NotReadyError

SILENT_SECONDS = 5.0
"""An engine without an answer for so long is not ready: it should answer between two steps."""


class Readiness:
    """The state of one server and its engine.

    Args:
        engine: vLLM's engine client.
        stall_seconds: silence after which the engine counts as hanging.

    """

    def __init__(self, engine: Any, stall_seconds: float) -> None:
        self._stall_seconds = stall_seconds
        self.pulse = Pulse(engine)
        self.draining = False

    def is_stalled(self) -> bool:
        """Say whether the engine hangs."""
        return self.pulse.unanswered_seconds() > self._stall_seconds

    def admit(self) -> None:
        """Admit a request.

        Raises:
            NotReadyError: the server is stopping, or its engine is dead or hangs.

        """
        if self.draining:
            raise NotReadyError("the server is shutting down", code="draining")
        if self.pulse.is_dead():
            raise NotReadyError("the engine has died; the server ends", code="engine_dead")
        if self.is_stalled():
            raise NotReadyError(
                f"the engine has not answered for {self.pulse.unanswered_seconds():.0f} s",
                code="engine_stalled",
            )

    def check(self) -> None:
        """Return if the engine makes steps and the server admits requests.

        Raises:
            NotReadyError: the engine is paused or silent, or the server admits no request.

        """
        self.admit()
        if self.pulse.paused:
            raise NotReadyError("the engine is paused", code="engine_paused")
        if self.pulse.unanswered_seconds() > SILENT_SECONDS:
            raise NotReadyError(
                f"the engine has not answered for {self.pulse.unanswered_seconds():.0f} s",
                code="engine_silent",
            )
