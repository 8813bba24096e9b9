"""A time for a body and one for an answer; whoever is late is told so, and nothing goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import orjson
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client import REGISTRY
from vllm.entrypoints.serve.utils.api_utils import with_cancellation
from vllm.v1.engine.exceptions import EngineDeadError

from service.access.deadline import Deadline
from service.access.visit import Visit
from service.errors import RequestError
from service.settings import Settings

SOON = {"x-request-timeout": "0.05"}


class Routes:
    """An app whose routes take until they are cancelled, and note that they were."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.closing: Callable[[RequestError], bytes] | None = None
        self.is_between_parts = True
        self.given_up_for: Exception = EngineDeadError()
        self.visit: Visit | None = None
        self._app = FastAPI(exception_handlers={EngineDeadError: self._too_late})
        self._app.post("/whole")(with_cancellation(self._whole))
        self._app.post("/stream")(self._stream)
        self._app.post("/v1/messages")(self._stream)
        self._app.post("/gives-up")(self._gives_up)
        self._app.post("/raises")(self._raises)
        self._app.post("/deaf")(self._deaf)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.visit = Visit.of(scope)
        await self._app(scope, receive, send)

    async def _forever(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()

    async def _whole(self, raw_request: Request) -> None:
        await self._forever()

    async def _stream(self, request: Request) -> StreamingResponse:
        visit = Visit.of(request.scope)
        visit.closing, visit.is_between_parts = self.closing, self.is_between_parts

        async def events() -> AsyncIterator[bytes]:
            yield b"data: {}\n\n"
            await self._forever()

        return StreamingResponse(events(), media_type="text/event-stream")

    async def _gives_up(self, request: Request) -> StreamingResponse:
        visit = Visit.of(request.scope)
        visit.closing, visit.is_between_parts = self.closing, self.is_between_parts

        async def events() -> AsyncIterator[bytes]:
            yield b"data: {}\n\n"
            raise self.given_up_for

        return StreamingResponse(events(), media_type="text/event-stream")

    async def _raises(self, request: Request) -> None:
        assert not await request.body()
        assert await request.receive() == {"type": "http.disconnect"}
        raise KeyError("lost")

    async def _too_late(self, request: Request, error: Exception) -> JSONResponse:
        raise AssertionError("a stream that has begun has no other answer")

    async def _deaf(self, request: Request) -> str:
        body = await request.body()
        await asyncio.sleep(0.1)  # longer than its deadline
        return body.decode()


@pytest.fixture
def routes() -> Routes:
    return Routes()


async def post(app: Any, path: str, headers: Any = None, body: Any = b"", **own: Any) -> Any:
    """Return the answer of an app with a deadline before it."""
    transport = httpx.ASGITransport(Deadline(app, Settings(**own)))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.post(path, content=body, headers=headers)


@pytest.mark.parametrize(
    ("own", "header"),
    [
        ({"request_timeout_seconds": 0.05}, None),
        ({"request_timeout_seconds": 0.05}, {"x-request-timeout": "3600"}),
        ({"request_timeout_seconds": 3600}, SOON),
        ({}, SOON),
    ],
)
async def test_the_shorter_of_two_times_ends_a_request(
    routes: Routes, own: Any, header: Any
) -> None:
    answer = await post(routes, "/whole", header, **own)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert "within 0.05 s" in answer.json()["error"]["message"]
    await routes.ended.wait()
    assert routes.visit is not None
    routes.visit.end("cancelled", 3)
    assert (routes.visit.outcome, routes.visit.tokens) == ("deadline", 3)


async def test_a_stream_ends_with_an_event_that_tells(routes: Routes) -> None:
    answer = await post(routes, "/stream", SOON)
    assert answer.status_code == 200
    first, last, rest = answer.text.split("\n\n")
    assert (first, rest) == ("data: {}", "")
    assert last.startswith('data: {"error":{"message":"the request was not answered within')
    assert routes.ended.is_set()


async def test_a_stream_of_another_form_ends_in_its_own(routes: Routes) -> None:
    routes.closing = lambda error: f"<{error.status}>".encode()
    assert (await post(routes, "/stream", SOON)).text == "data: {}\n\n<504>"


async def test_anthropics_clients_are_told_by_the_events_name(routes: Routes) -> None:
    last = (await post(routes, "/v1/messages", SOON)).text.split("\n\n")[1]
    name, data = last.split("\n")
    assert name == "event: error"
    told = orjson.loads(data.removeprefix("data: "))
    assert (told["type"], told["error"]["type"]) == ("error", "timeout_error")
    assert told["error"]["message"].startswith("the request was not answered")


async def given_up(routes: Routes) -> tuple[list[bytes], BaseException]:
    """Return the parts of the body of a stream that its route gives up, and what is raised."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asked = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Any:
        return next(asked, None) or await asyncio.Event().wait()

    scope = {"type": "http", "method": "POST", "path": "/gives-up", "query_string": b""}
    with pytest.raises((RuntimeError, KeyError)) as raised:
        await Deadline(routes, Settings())({**scope, "headers": []}, receive, send)
    return [message["body"] for message in sent[1:]], raised.value


@pytest.mark.parametrize(
    ("error", "type_", "message"),
    [
        # Which an app has a handler for, as vLLM's has.
        (EngineDeadError(), "InternalServerError", "EngineCore encountered an issue"),
        (KeyError("lost"), "InternalServerError", "lost"),
    ],
)
async def test_a_stream_that_is_given_up_ends_with_an_event_that_tells(
    routes: Routes, error: Exception, type_: str, message: str
) -> None:
    routes.given_up_for = error
    (first, last), raised = await given_up(routes)
    assert first == b"data: {}\n\n"
    told = orjson.loads(last.removeprefix(b"data: "))["error"]
    assert (told["type"], told["code"], told["param"]) == (type_, None, None)
    assert message in told["message"]
    assert error in (raised, raised.__cause__)


async def test_a_given_up_stream_of_another_form_or_within_a_part_is_only_broken_off(
    routes: Routes,
) -> None:
    routes.is_between_parts = False
    assert (await given_up(routes))[0] == [b"data: {}\n\n"]
    routes.is_between_parts, routes.closing = True, lambda error: b"never"
    assert (await given_up(routes))[0] == [b"data: {}\n\n"]


async def test_an_event_that_is_half_sent_is_only_broken_off(routes: Routes) -> None:
    routes.is_between_parts = False
    # Its transport says of an answer without an end what a connection would by closing.
    with pytest.raises(AssertionError):
        await post(routes, "/stream", SOON)
    assert routes.ended.is_set()


async def test_a_route_that_does_not_look_has_the_last_word(routes: Routes) -> None:
    answer = await post(routes, "/deaf", SOON, b"done")
    assert (answer.status_code, answer.json()) == (200, "done")


async def test_what_a_late_route_makes_of_its_end_is_no_answer(routes: Routes) -> None:
    assert (await post(routes, "/raises", SOON)).status_code == 504


async def test_a_body_that_does_not_come_is_a_408(routes: Routes) -> None:
    sent = asyncio.Semaphore(0)

    async def bytewise() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            sent.release()
            await asyncio.sleep(0.001)  # the speed itself

    answer = await post(routes, "/deaf", None, bytewise(), receive_timeout_seconds=0.05)
    assert (answer.status_code, answer.json()["error"]["param"]) == (408, "body")
    assert answer.headers["connection"] == "close"
    await sent.acquire()


async def test_a_whole_body_has_no_part_in_the_time_to_answer(routes: Routes) -> None:
    answer = await post(routes, "/deaf", None, b"done", receive_timeout_seconds=0.05)
    assert answer.json() == "done"


@pytest.mark.parametrize("value", ["", "soon", "0", "-1", "nan", "inf", "x" * 5000])
async def test_a_time_that_is_none_is_refused(routes: Routes, value: str) -> None:
    answer = await post(routes, "/deaf", {"x-request-timeout": value})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "x-request-timeout")
    assert len(error["message"]) < 300


async def test_a_reader_that_takes_nothing_of_any_route_is_cut_off() -> None:
    """Of a stream of anybody's; what it is made of ends with it."""
    ended = asyncio.Event()

    async def events() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"data: {}\n\n"
        finally:
            ended.set()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await StreamingResponse(events(), media_type="text/event-stream")(scope, receive, send)

    taken: list[Any] = []

    async def send(message: Any) -> None:
        taken.append(message)
        if len(taken) == 3:
            await asyncio.Event().wait()

    async def receive() -> Any:
        await asyncio.Event().wait()

    scope: dict[str, Any] = {"type": "http", "path": "/", "headers": []}
    scope["asgi"] = {"spec_version": "2.4"}
    before = REGISTRY.get_sample_value("sensefield_slow_readers_total") or 0.0
    await Deadline(app, Settings(send_timeout_seconds=0.05))(scope, receive, send)
    await ended.wait()
    assert len(taken) == 3
    assert Visit.of(scope).cut_off == "cancelled"
    assert REGISTRY.get_sample_value("sensefield_slow_readers_total") == before + 1
