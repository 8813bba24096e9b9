"""Limits on the bytes of one body, and of the bodies of all running requests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import Message, Receive, Scope, Send

from service.access.refusal import refuse
from service.errors import RequestError, SaturatedError, TooLargeError


class BodyMemoryLimit:
    """Memory for the bodies of running requests.

    Args:
        most: most bytes of one body.
        most_of_all: most bytes of all bodies together.

    """

    def __init__(self, most: int, most_of_all: int) -> None:
        self.most = min(most, most_of_all)
        self._most_of_all = most_of_all
        self._taken = 0

    @contextmanager
    def held(self, announced: int) -> Iterator[Reservation]:
        """Count the bytes of a body as they arrive, for as long as the context lasts.

        Only bytes that have arrived are counted: a client that announces a body and sends none
        blocks no other client.

        Raises:
            TooLargeError: the announced size is over the limit of one body.
            SaturatedError: the announced size is over the memory that is free now.

        """
        room = Reservation(self)
        room.check(announced)
        try:
            yield room
        finally:
            self._taken -= room.size

    def check(self, size: int) -> None:
        """Raise SaturatedError if fewer than ``size`` bytes are free."""
        if self._taken + size > self._most_of_all:
            raise SaturatedError(
                f"the bodies of running requests would be over {self._most_of_all} bytes; "
                "try again later",
                "body",
                SaturatedError.BODIES_FULL,
            )

    def take(self, size: int) -> None:
        """Count bytes that have been checked."""
        self._taken += size


class Reservation:
    """The bytes of one body."""

    def __init__(self, room: BodyMemoryLimit) -> None:
        self._room = room
        self.size = 0

    def check(self, size: int) -> None:
        """Raise the errors of :meth:`take`, but count nothing."""
        if self.size + size > self._room.most:
            raise TooLargeError(f"the body is over {self._room.most} bytes", "body")
        self._room.check(size)

    def take(self, size: int) -> None:
        """Count bytes that have arrived.

        Raises:
            TooLargeError: the body is over the limit of one body.
            SaturatedError: fewer bytes are free.

        """
        self.check(size)
        self._room.take(size)
        self.size += size


class LimitedBody:
    """Receive a body; refuse the request in the app's place once the body is over a limit."""

    def __init__(self, room: Reservation, scope: Scope, receive: Receive, send: Send) -> None:
        self._room = room
        self._scope = scope
        self._receive = receive
        self._send = send
        self._started = False
        self.refused = False
        """True once the app has received a disconnect in place of the body."""

    async def receive(self) -> Message:
        """Return the next message, or a disconnect once the body is over a limit."""
        message = await self._receive()
        if message["type"] == "http.request" and not self.refused:
            try:
                self._room.take(len(message.get("body", b"")))
            except RequestError as error:
                self.refused = True
                if not self._started:
                    await refuse(error, self._scope, self._receive, self._send)
        return {"type": "http.disconnect"} if self.refused else message

    async def send(self, message: Message) -> None:
        """Send the app's message, unless the request has been refused already."""
        if not self.refused:
            self._started = True
            await self._send(message)
