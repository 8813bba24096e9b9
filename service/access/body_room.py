"""How many bytes a body may have, and all bodies that are in at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import Message, Receive, Scope, Send

from service.access.refusal import refuse
from service.errors import RequestError, SaturatedError, TooLargeError


class BodyRoom:
    """Room for the bodies of requests that have not ended.

    Args:
        most: bytes of one.
        most_of_all: bytes of all together.

    """

    def __init__(self, most: int, most_of_all: int) -> None:
        self.most = min(most, most_of_all)
        self._most_of_all = most_of_all
        self._taken = 0

    @contextmanager
    def held(self, announced: int) -> Iterator[HeldRoom]:
        """Hold the room that a body takes as its bytes come, as long as the context lasts.

        What is only announced takes none: whoever sends nothing keeps nobody out.

        Raises:
            TooLargeError: more is announced than a body may have.
            SaturatedError: more than there is room for now.

        """
        room = HeldRoom(self)
        room.check(announced)
        try:
            yield room
        finally:
            self._taken -= room.size

    def check(self, size: int) -> None:
        """Raise SaturatedError if so many bytes of the room of all are not left."""
        if self._taken + size > self._most_of_all:
            raise SaturatedError(
                f"the bodies of running requests would be over {self._most_of_all} bytes; "
                "try again later",
                "body",
                SaturatedError.BODIES_FULL,
            )

    def take(self, size: int) -> None:
        """Take bytes of the room of all, which has them."""
        self._taken += size


class HeldRoom:
    """What one body has of the room."""

    def __init__(self, room: BodyRoom) -> None:
        self._room = room
        self.size = 0

    def check(self, size: int) -> None:
        """Raise what :meth:`take` does, and take nothing."""
        if self.size + size > self._room.most:
            raise TooLargeError(f"the body is over {self._room.most} bytes", "body")
        self._room.check(size)

    def take(self, size: int) -> None:
        """Take bytes more.

        Raises:
            TooLargeError: more than a body may have.
            SaturatedError: more than there is room for now.

        """
        self.check(size)
        self._room.take(size)
        self.size += size


class CountedBody:
    """Receives a body, and answers in the app's place once it finds no room."""

    def __init__(self, room: HeldRoom, scope: Scope, receive: Receive, send: Send) -> None:
        self._room = room
        self._scope = scope
        self._receive = receive
        self._send = send
        self._started = False
        self.refused = False
        """Whether the app was told that its client has left."""

    async def receive(self) -> Message:
        """Return the next message; that the client has left, once it has sent too much."""
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
        """Send what the app says, unless the client has been told already."""
        if not self.refused:
            self._started = True
            await self._send(message)
