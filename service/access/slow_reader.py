"""Gives the reader of an answer its time for each message, and no more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import closing

from starlette.types import Message, Send

from service.metrics import SLOW_READERS

_LOOKS = 8
"""How often a reader is looked at before it is cut off."""
_log = logging.getLogger("vllm.sensefield")


async def within(seconds: float, send: Send, answer: Callable[[Send], Awaitable[None]]) -> bool:
    """Answer a request; say whether its reader has taken what was sent.

    Once the reader has taken ``seconds`` for one message, what answers is cancelled.
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
    """Has a limit expire once one message has taken ``seconds``.

    A stream has thousands of messages, of which hardly one waits: they share a timer, which
    looks some times in those seconds whether the same message is still under way. Looks are
    counted, not seconds, so that a loop that stands still blames no reader for it.
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
        """Stop looking."""
        self._timer.cancel()
