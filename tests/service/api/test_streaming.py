"""Answers in pieces, and what ends with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import ExitStack
from typing import Any

import pytest
from starlette.background import BackgroundTask

from service.access.dialect import sse_event
from service.api.streaming import PiecedAnswer, PiecedStream, error_in

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


async def test_large_chunks_go_out_in_pieces() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    content = Content(bytes(150_000), "né")
    response = PiecedStream(content.generate(), "text/event-stream")
    await response(SCOPE, receive, send)
    assert dict(sent[0]["headers"])[b"content-type"].startswith(b"text/event-stream")
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
        PiecedStream(waiting(), "text/event-stream")(SCOPE, receive, send)
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

    await PiecedStream(Content().generate(), "text/event-stream")(SCOPE, receive, send)
    assert sent == ["http.response.start", "http.response.body"]


async def test_an_error_in_the_content_goes_on() -> None:
    async def failing() -> AsyncGenerator[bytes, None]:
        yield b"a"
        raise KeyError("lost")

    async def send(message: Any) -> None:
        pass

    with pytest.raises(KeyError, match="lost"):
        await PiecedStream(failing(), "text/event-stream")(SCOPE, receive, send)


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

    await PiecedAnswer(b"x" * 150_000, ending)(SCOPE, receive, send)
    kinds = [message["type"] for message in sent]
    assert kinds == ["http.response.start", *["http.response.body"] * 4, "given back"]
    assert dict(sent[0]["headers"])[b"content-length"] == b"150000"
    assert [len(message["body"]) for message in sent[1:5]] == [65536, 65536, 18928, 0]


@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])  # with a task group, and without
async def test_a_stream_that_is_cancelled_closes_what_it_is_made_of(spec_version: str) -> None:
    reading = asyncio.Event()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            reading.set()
            await asyncio.Event().wait()

    content = Content(b"a", b"b")
    counted: list[str] = []
    answer = PiecedStream(content.generate(), "text/event-stream")
    answer.background = BackgroundTask(counted.append, "ended")
    scope = {**SCOPE, "asgi": {"spec_version": spec_version}}
    await _cancelled(answer(scope, receive, send), reading)
    assert content.closed
    assert counted == ["ended"]


async def test_an_answer_that_is_cancelled_tells_before_it_gives_back() -> None:
    events: list[str] = []
    ending = ExitStack()
    ending.callback(events.append, "given back")
    reading = asyncio.Event()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            reading.set()
            await asyncio.Event().wait()

    answer = PiecedAnswer(b"x", ending, lambda: events.append("left"))
    await _cancelled(answer(SCOPE, receive, send), reading)
    assert events == ["left", "given back"]


async def _cancelled(answer: Coroutine[Any, Any, None], reading: asyncio.Event) -> None:
    """Cancel an answer once its reader has begun to read it."""
    task = asyncio.create_task(answer)
    await reading.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_an_answer_that_nobody_sends_gives_back_what_it_holds() -> None:
    events: list[str] = []
    ending = ExitStack()
    ending.callback(events.append, "given back")
    answer = PiecedAnswer(b"x", ending)
    assert events == []
    del answer
    assert events == ["given back"]
