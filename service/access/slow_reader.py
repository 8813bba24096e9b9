"""A time limit for the client to read each message of an answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import closing

from starlette.types import Message, Send

from service.metrics import SLOW_READERS

_LOOKS = 8
"""Checks of a blocked message before the client is cut off."""
_log = logging.getLogger("vllm.sensefield")


async def within(seconds: float, send: Send, answer: Callable[[Send], Awaitable[None]]) -> bool:
    """Answer a request; return False if the client did not read the answer in time.

    ``answer`` is cancelled once the client has taken ``seconds`` to read one message.
    """
    try:
        async with asyncio.timeout(None) as limit:
            with closing(_TimedSend(send, seconds, limit)) as timed:
                await answer(timed.send)
    except TimeoutError:
        if not limit.expired():
            raise
        SLOW_READERS.inc()
        _log.warning("cut off a reader that took nothing for %g s", seconds)
        return False
    return True


class _TimedSend:
    """Make a limit expire once one message has taken ``seconds`` to send.

    A stream has thousands of messages, and hardly one of them blocks. They share a timer that
    checks several times in ``seconds`` whether the same message is still being sent. It counts
    checks, not seconds, so that a blocked event loop is not counted against the client.
    """

    def __init__(self, send: Send, seconds: float, limit: asyncio.Timeout) -> None:
        self._send = send
        self._between = seconds / _LOOKS
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._message: Message | None = None
        self._seen: Message | None = None
        self._looks = 0
        self._timer = self._loop.call_later(self._between, self._look)

    async def send(self, message: Message) -> None:
        """Send a message."""
        self._message = message
        try:
            await self._send(message)
        finally:
            self._message = None

    def _look(self) -> None:
        same = self._message is not None and self._message is self._seen
        self._looks = self._looks + 1 if same else 0
        self._seen = self._message
        if self._looks == _LOOKS:
            self._limit.reschedule(self._loop.time())
        else:
            self._timer = self._loop.call_later(self._between, self._look)

    def close(self) -> None:
        """Stop the timer."""
        self._timer.cancel()
