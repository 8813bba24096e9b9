"""The headers of every answer and the form of every error, also where no route has answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest
import uvicorn
from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.requests import ClientDisconnect

from loadtests.measure.servers import free_port
from service.access.outgoing import Outgoing
from service.access.visit import Visit
from service.errors import error_body
from tests.waiting import until

OWN = error_body("no", "conflict_error", "name", "exists")
FAILED = {"message": "the server failed; its log says why", "type": "server_error"}
ENDED = {"message": "the server ended before it had answered", "type": "not_ready_error"}


def answering(response: Response) -> Any:
    """Return an app that answers every path in one way."""
    app = FastAPI()

    @app.api_route("/{path:path}", methods=["GET", "HEAD"])
    async def answer(path: str) -> Response:
        return response

    return Outgoing(app)


async def ask(app: Any, path: str = "/v1/tokens", **headers: str) -> httpx.Response:
    async def known(scope: Any, receive: Any, send: Any) -> None:
        Visit.of(scope).request_id = "mine"
        await app(scope, receive, send)

    transport = httpx.ASGITransport(known, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get(path, headers=headers)


@pytest.mark.parametrize(
    ("response", "status", "error"),
    [
        (JSONResponse(OWN, 409), 409, OWN["error"]),
        (JSONResponse({"detail": "Not Found"}, 404), 404, {"type": "not_found_error"}),
        (JSONResponse({"error": "it scales"}, 503), 503, {"message": "it scales"}),
        (PlainTextResponse("Disallowed", 400), 400, {"message": "Disallowed"}),
        (PlainTextResponse("x" * 5000, 400), 400, {"message": "x" * 2000}),
        (Response(status_code=503), 503, {"message": "Service Unavailable"}),
        (Response(status_code=499), 499, {"message": "HTTP 499"}),  # a client that has left
        (Response(b"\xff", 500), 500, {"message": "\ufffd", "type": "server_error"}),
    ],
)
async def test_an_error_is_openais_object(
    response: Response, status: int, error: dict[str, Any]
) -> None:
    answer = await ask(answering(response))
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["content-length"]) == len(answer.content)
    told = answer.json()["error"]
    assert set(told) == {"message", "type", "param", "code"}
    assert told.items() >= error.items()


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
@pytest.mark.parametrize(
    ("response", "kind", "message"),
    [
        (JSONResponse(OWN, 409), "invalid_request_error", "name: no"),
        (JSONResponse(OWN, 401), "authentication_error", "name: no"),
        (JSONResponse(OWN, 403), "permission_error", "name: no"),
        (JSONResponse(OWN, 404), "not_found_error", "name: no"),
        (JSONResponse(OWN, 413), "request_too_large", "name: no"),
        (JSONResponse(OWN, 429), "rate_limit_error", "name: no"),
        (JSONResponse(OWN, 503), "overloaded_error", "name: no"),
        (JSONResponse(OWN, 504), "timeout_error", "name: no"),
        (PlainTextResponse("gone", 500), "api_error", "gone"),
        (
            JSONResponse({"type": "error", "error": {"type": "Bad", "message": "why"}}, 400),
            "invalid_request_error",
            "why",
        ),
    ],
)
async def test_anthropics_clients_get_anthropics_object(
    path: str, response: Response, kind: str, message: str
) -> None:
    answer = await ask(answering(response), path)
    assert answer.json() == {
        "type": "error",
        "error": {"type": kind, "message": message},
        "request_id": "mine",
    }


async def test_what_is_no_error_passes_as_it_is() -> None:
    for path in ("/v1/tokens", "/v1/messages"):
        answer = await ask(answering(PlainTextResponse("fine")), path)
        assert answer.text == "fine"
        assert {"x-should-retry", "retry-after", "x-accel-buffering"}.isdisjoint(answer.headers)


@pytest.mark.parametrize(
    ("status", "headers", "retry", "after"),
    [
        (409, {}, "false", None),
        (504, {}, "false", None),
        (507, {}, "false", None),
        (503, {}, None, "5"),
        (503, {"Retry-After": "9"}, None, "9"),
        (500, {}, None, None),
        (200, {}, None, None),
    ],
)
async def test_a_client_is_told_whether_to_come_again(
    status: int, headers: dict[str, str], retry: str | None, after: str | None
) -> None:
    answer = await ask(answering(JSONResponse(OWN, status, headers)))
    told = answer.headers.get("x-should-retry"), answer.headers.get_list("retry-after")
    assert told == (retry, [after] if after else [])


async def parts(*told: bytes) -> AsyncIterator[bytes]:
    for part in told:
        yield part


async def test_no_proxy_keeps_events_back() -> None:
    events = StreamingResponse(parts(b"data: {}\n\n"), media_type="text/event-stream")
    answer = await ask(answering(events))
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["cache-control"] == "no-cache"


async def test_an_error_of_vllms_in_a_stream_gets_anthropics_type() -> None:
    error = {"type": "error", "error": {"type": "internal_error", "message": "died"}}
    parted = parts(b"event: ping\n\n", b"event: error\ndata: " + orjson.dumps(error) + b"\n\n")
    answer = await ask(
        answering(StreamingResponse(parted, media_type="text/event-stream")), "/v1/messages"
    )
    first, last, _ = answer.text.split("\n\n")
    assert first == "event: ping"
    name, data = last.split("\n")
    assert name == "event: error"
    assert orjson.loads(data.removeprefix("data: ")) == {
        "type": "error",
        "error": {"type": "api_error", "message": "died"},
        "request_id": "mine",
    }


class Wire:
    """Calls an app as a server does, and keeps what it sends."""

    def __init__(self, path: str = "/v1/tokens") -> None:
        self.scope = {"type": "http", "method": "POST", "path": path, "headers": []}
        self.sent: list[Any] = []

    async def receive(self) -> Any:
        raise AssertionError

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def call(self, app: Any) -> BaseException | None:
        """Return what the app raised."""
        try:
            await Outgoing(app)(self.scope, self.receive, self.send)
        except BaseException as error:
            return error
        return None

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def error(self) -> dict[str, Any]:
        assert [message["type"] for message in self.sent] == [
            "http.response.start",
            "http.response.body",
        ]
        error: dict[str, Any] = orjson.loads(self.sent[1]["body"])["error"]
        return error


def sending(*messages: dict[str, Any], raised: BaseException | None = None) -> Any:
    """Return an app that sends messages, and then raises or returns."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)
        if raised is not None:
            raise raised

    return app


START: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": []}
EVENTS = START | {"headers": [(b"content-type", b"text/event-stream; charset=utf-8")]}
REFUSED = START | {"status": 400}
PART: dict[str, Any] = {"type": "http.response.body", "body": b"data: {}\n\n", "more_body": True}
LAST: dict[str, Any] = {"type": "http.response.body", "body": b""}


@pytest.mark.parametrize("messages", [[], [REFUSED], [REFUSED, PART]])
@pytest.mark.parametrize(
    ("raised", "status", "told"),
    [
        (KeyError("a middleware's bug"), 500, FAILED),
        (ValueError("no client's"), 500, FAILED),
        (asyncio.CancelledError(), 503, ENDED),
        (None, 500, FAILED),
    ],
)
async def test_who_has_no_answer_gets_an_error_object(
    messages: list[Any], raised: BaseException | None, status: int, told: dict[str, str]
) -> None:
    wire = Wire()
    assert await wire.call(sending(*messages, raised=raised)) is raised
    assert wire.status == status
    assert wire.error.items() >= told.items()
    if raised is not None:
        assert str(raised) not in wire.error["message"] or not str(raised)


async def test_a_server_that_ends_says_so_in_the_audit_log_too() -> None:
    wire = Wire()
    await wire.call(sending(raised=asyncio.CancelledError()))
    assert Visit.of(wire.scope).cut_off == "unavailable"


@pytest.mark.parametrize(
    ("path", "begins"), [("/v1/x", b'data: {"error":'), ("/v1/messages", b"event: error\ndata: ")]
)
async def test_a_stream_ends_with_the_error(path: str, begins: bytes) -> None:
    wire = Wire(path)
    await wire.call(sending(EVENTS, PART, raised=asyncio.CancelledError()))
    last = wire.sent[-1]
    assert (last["more_body"], len(wire.sent)) == (False, 3)
    assert last["body"].startswith(begins)
    assert ENDED["message"].encode() in last["body"]


@pytest.mark.parametrize(
    "messages", [[START, PART], [EVENTS, PART, LAST]], ids=["no stream", "whole"]
)
async def test_nothing_comes_after_an_answer_that_cannot_tell(messages: list[Any]) -> None:
    wire = Wire()
    await wire.call(sending(*messages, raised=KeyError("lost")))
    assert len(wire.sent) == len(messages)


async def test_nothing_comes_between_the_parts_of_an_event() -> None:
    wire = Wire()
    Visit.of(wire.scope).is_between_parts = False
    await wire.call(sending(EVENTS, PART, raised=asyncio.CancelledError()))
    assert len(wire.sent) == 2


async def test_a_stream_of_another_form_ends_in_its_own() -> None:
    wire = Wire()
    Visit.of(wire.scope).closing = lambda error: f"<{error.status}>".encode()
    await wire.call(sending(START, PART, raised=asyncio.CancelledError()))
    assert wire.sent[-1]["body"] == b"<503>"


@pytest.mark.parametrize("raised", [ClientDisconnect(), KeyError("lost"), None])
async def test_who_has_left_is_told_nothing(raised: Exception | None) -> None:
    wire = Wire()
    Visit.of(wire.scope).leave()
    assert await wire.call(sending(raised=raised)) is raised
    assert wire.sent == []


@pytest.mark.parametrize("shaped", [True, False])
async def test_a_server_that_ends_answers_whom_it_let_wait(shaped: bool) -> None:
    """With a real uvicorn, whose own answer is plain text."""
    waits = asyncio.Event()

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        waits.set()
        await asyncio.Event().wait()

    behind: Any = Outgoing(app) if shaped else app
    config = uvicorn.Config(
        behind,
        port=free_port(),
        lifespan="off",
        log_level="critical",
        timeout_graceful_shutdown=0,
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve())
    async with httpx.AsyncClient() as client:
        await until(lambda: server.started)
        asked = asyncio.create_task(client.get(f"http://127.0.0.1:{config.port}/v1/score"))
        await waits.wait()
        server.should_exit = True
        answer = await asked
    await serving
    if not shaped:
        assert answer.text == "Internal Server Error"
        return
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json()["error"].items() >= ENDED.items()
