"""Streams to readers that are slow, or gone."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import ExitStack
from typing import Any

import pytest
from prometheus_client import REGISTRY
from starlette.requests import ClientDisconnect

from service.api.streaming import TimedAnswer, TimedStream, error_in, sse_event

SCOPE: dict[str, Any] = {"type": "http", "asgi": {"spec_version": "2.4"}}


class Content:
    """Chunks to send, which remember whether they were closed."""

    def __init__(self, *chunks: bytes | str) -> None:
        self._chunks = chunks
        self.closed = False

    async def generate(self) -> AsyncGenerator[bytes | str, None]:
        try:
            for chunk in self._chunks:
                yield chunk
        finally:
            self.closed = True


async def receive() -> Any:
    await asyncio.Event().wait()


def slow_readers() -> float:
    """Return how many were cut off."""
    count = REGISTRY.get_sample_value("sensefield_slow_readers_total")
    assert count is not None
    return count


async def test_large_chunks_go_out_in_pieces() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    content = Content(bytes(150_000), "né")
    response = TimedStream(content.generate(), 60, "text/event-stream", {"x": "y"})
    await response(SCOPE, receive, send)
    assert (b"x", b"y") in sent[0]["headers"]
    assert [len(message["body"]) for message in sent[1:]] == [65536, 65536, 18928, 3, 0]
    assert [message["more_body"] for message in sent[1:]] == [True] * 4 + [False]
    assert content.closed


async def test_the_head_waits_for_the_first_chunk() -> None:
    sent: list[Any] = []
    begin = asyncio.Event()

    async def waiting() -> AsyncGenerator[bytes, None]:
        await begin.wait()
        yield b"a"

    async def send(message: Any) -> None:
        sent.append(message["type"])

    answering = asyncio.ensure_future(
        TimedStream(waiting(), 60, "text/event-stream")(SCOPE, receive, send)
    )
    await asyncio.sleep(0)
    assert sent == []
    begin.set()
    await answering
    assert sent == ["http.response.start", *["http.response.body"] * 2]


async def test_a_stream_of_nothing_has_a_head() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await TimedStream(Content().generate(), 60, "text/event-stream")(SCOPE, receive, send)
    assert sent == ["http.response.start", "http.response.body"]


async def test_a_reader_that_takes_nothing_ends_the_stream() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        if len(sent) == 2:
            await asyncio.Event().wait()
        sent.append(message)

    content = Content(b"a", b"b", b"c")
    cut_off = slow_readers()
    await TimedStream(content.generate(), 0.01, "text/event-stream")(SCOPE, receive, send)
    assert len(sent) == 2
    assert content.closed
    assert slow_readers() == cut_off + 1


async def test_a_reader_in_time_is_served_however_long_the_stream() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        await asyncio.sleep(0.02)  # a reader's pace: a fifth of what it may take
        sent.append(message)

    content = Content(*[b"a"] * 20)
    await TimedStream(content.generate(), 0.1, "text/event-stream")(SCOPE, receive, send)
    assert len(sent) == 22


async def test_a_loop_that_stood_still_blames_no_reader() -> None:
    """The reader takes its piece meanwhile; the loop sees that only when it turns again."""
    seconds = 0.2
    mine, readers = socket.socketpair()
    mine.setblocking(False)
    loop = asyncio.get_running_loop()
    sent: list[Any] = []

    def stand_still() -> None:
        time.sleep(2 * seconds)  # what is tested
        readers.send(b"taken")

    async def send(message: Any) -> None:
        if len(sent) == 1:
            loop.call_soon(stand_still)
            await loop.sock_recv(mine, 8)
        sent.append(message)
        await asyncio.sleep(0)  # the others' turn

    with mine, readers:
        await TimedStream(Content(b"a", b"b").generate(), seconds, "text/plain")(
            SCOPE, receive, send
        )
    assert len(sent) == 4


async def test_a_stream_may_be_silent_for_longer_than_a_reader() -> None:
    async def silent() -> AsyncGenerator[bytes, None]:
        yield b"a"
        await asyncio.sleep(0.05)  # an engine's pace
        yield b"b"

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await TimedStream(silent(), 0.01, "text/event-stream")(SCOPE, receive, send)
    assert len(sent) == 4


async def test_a_timeout_of_the_content_is_not_the_readers() -> None:
    async def failing() -> AsyncGenerator[bytes, None]:
        yield b"a"
        raise TimeoutError("the engine's")

    async def send(message: Any) -> None:
        pass

    cut_off = slow_readers()
    with pytest.raises(ClientDisconnect):  # what Starlette makes of any OSError
        await TimedStream(failing(), 60, "text/event-stream")(SCOPE, receive, send)
    assert slow_readers() == cut_off


async def test_an_error_in_the_content_goes_on() -> None:
    async def failing() -> AsyncGenerator[bytes, None]:
        yield b"a"
        raise KeyError("lost")

    async def send(message: Any) -> None:
        pass

    with pytest.raises(KeyError, match="lost"):
        await TimedStream(failing(), 60, "text/event-stream")(SCOPE, receive, send)


def test_an_error_is_found_in_the_event_that_tells_it() -> None:
    event = 'data: {"error": {"message": "m", "type": "t", "param": "p", "code": 504}}\n\n'
    error = error_in(event)
    assert error is not None
    assert (error.message, error.type, error.param, error.code) == ("m", "t", "p", 504)


@pytest.mark.parametrize(
    "event",
    ['data: {"choices": [{"text": "data: {\\"error\\":"}]}\n\n', b"x", "data: [DONE]"],
)
def test_other_events_tell_none(event: str | bytes) -> None:
    assert error_in(event) is None


def test_an_event_is_one_line_and_a_blank_one() -> None:
    assert sse_event({"a": "b\nc"}) == b'data: {"a":"b\\nc"}\n\n'


async def test_a_whole_answer_goes_out_in_pieces_and_holds_its_room_until_then() -> None:
    sent: list[Any] = []
    ending = ExitStack()
    ending.callback(sent.append, {"type": "given back"})

    async def send(message: Any) -> None:
        sent.append(message)

    await TimedAnswer(b"x" * 150_000, 60, ending)(SCOPE, receive, send)
    kinds = [message["type"] for message in sent]
    assert kinds == ["http.response.start", *["http.response.body"] * 4, "given back"]
    assert dict(sent[0]["headers"])[b"content-length"] == b"150000"
    assert [len(message["body"]) for message in sent[1:5]] == [65536, 65536, 18928, 0]


async def test_a_reader_that_takes_nothing_of_an_answer_is_cut_off() -> None:
    events: list[str] = []
    ending = ExitStack()
    ending.callback(events.append, "given back")

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    cut_off = slow_readers()
    answer = TimedAnswer(b"x" * 150_000, 0.01, ending, lambda: events.append("left"))
    await answer(SCOPE, receive, send)
    assert events == ["left", "given back"]
    assert slow_readers() == cut_off + 1


def test_an_answer_that_nobody_sends_gives_back_what_it_holds() -> None:
    events: list[str] = []
    ending = ExitStack()
    ending.callback(events.append, "given back")
    answer = TimedAnswer(b"x", 60, ending)
    assert events == []
    del answer
    assert events == ["given back"]
