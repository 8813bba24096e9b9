"""The audit log: a line a request, with all that it should hold and nothing else."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest
import uvicorn
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from vllm.entrypoints.serve.utils.api_utils import with_cancellation

from loadtests.measure.servers import free_port
from service.access.audit import Audit, audit_logger
from service.access.authorization import Authorization
from service.access.bodies import CheckedRequest
from service.access.keys import Key, KeyRing
from service.access.outgoing import Outgoing
from service.access.visit import Visit
from service.api.route import SensefieldRoute
from service.settings import settings
from tests.waiting import until

SECRET = "sf-secret"


def make_app(logger: Any) -> Any:
    """Return routes behind keys behind the log."""
    app = FastAPI()

    @app.get("/v1/models/{name}")
    async def answer(name: str, request: Request) -> str:
        visit = Visit.of(request.scope)
        visit.controls = {"token_bias": 2}
        visit.end("ok", 7)
        return name

    @app.get("/v1/score")
    async def stream() -> StreamingResponse:
        return StreamingResponse(iter([b"abc", b"de"]))

    @app.post("/v1/completions")
    async def echo(request: Request) -> Any:
        return await CheckedRequest(request.scope, request.receive).json()

    keys = KeyRing([Key.of("alice", ["inference"], SECRET)])
    return Audit(Authorization(app, lambda: keys), logger)


class Lines:
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.kept: list[dict[str, Any]] = []

    def info(self, event: str, **fields: Any) -> None:
        """Keep a line."""
        assert event == "request"
        self.kept.append(fields)


async def ask(app: Any, path: str, **headers: str) -> httpx.Response:
    """Ask with alice's key, unless another one is given."""
    transport = httpx.ASGITransport(app)
    told = {"authorization": f"Bearer {SECRET}"}
    told |= {name.replace("_", "-"): value for name, value in headers.items()}
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get(path, headers=told)


async def test_a_line_says_who_what_and_how_it_ended() -> None:
    lines = Lines()
    answer = await ask(make_app(lines), "/v1/models/a?secret=1", x_request_id="mine-1")
    (line,) = lines.kept
    assert 0 < line.pop("seconds") < 60
    assert line == {
        "request_id": "mine-1",
        "key": "alice",
        "method": "GET",
        "route": "/v1/models/{name}",
        "outcome": "ok",
        "status": 200,
        "controls": {"token_bias": 2},
        "tokens": 7,
        "bytes": 3,
    }
    assert answer.headers["x-request-id"] == answer.headers["request-id"] == "mine-1"
    assert SECRET not in repr(lines.kept)


async def test_a_stream_is_counted_to_its_end() -> None:
    lines = Lines()
    assert (await ask(make_app(lines), "/v1/score")).content == b"abcde"
    assert [line["bytes"] for line in lines.kept] == [5]


@pytest.mark.parametrize(
    "path", ["/metrics", "/nowhere/%0a%22%e2%80%a8" + "x" * 900, "/v1/models/a"]
)
async def test_a_refused_request_has_its_line_too(path: str) -> None:
    lines = Lines()
    refused = await ask(make_app(lines), path, authorization="Bearer sf-wrong")
    (line,) = lines.kept
    assert (line["status"], line["outcome"], line["key"]) == (401, "client_error", None)
    assert len(line["route"]) <= 200
    assert line["route"].isascii()
    assert line["route"].isprintable()
    assert refused.headers["x-request-id"] == line["request_id"]


@pytest.mark.parametrize("told", ["", "a b", "x" * 65, "a;b", "a\u00e9"])
async def test_an_id_that_cannot_stand_in_a_log_is_replaced(told: str) -> None:
    lines = Lines()
    transport = httpx.ASGITransport(make_app(lines))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        headers = [(b"x-request-id", told.encode("latin-1"))]
        answer = await client.get("/v1/score", headers=headers)
    assert answer.headers["x-request-id"] == lines.kept[0]["request_id"] != told
    assert len(lines.kept[0]["request_id"]) == 32


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize(
    ("field", "prompt"), [("prompt", "Dear diary"), ("messages", [{"content": "Dear diary"}])]
)
async def test_a_prompt_is_told_only_if_that_was_asked_for(
    asked: bool, field: str, prompt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENSEFIELD_AUDIT_PROMPTS", str(asked))
    settings.cache_clear()
    lines = Lines()
    transport = httpx.ASGITransport(make_app(lines))
    headers = {"authorization": f"Bearer {SECRET}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.post("/v1/completions", json={field: prompt}, headers=headers)
    assert answer.json() == {field: prompt}
    (line,) = lines.kept
    assert line.get("prompt") == (prompt if asked else None)
    assert ("Dear diary" in repr(line)) is asked
    settings.cache_clear()


GONE = {"type": "http.disconnect"}
START = {"type": "http.response.start", "status": 200, "headers": []}
PART = {"type": "http.response.body", "body": b"null", "more_body": True}
LAST = {"type": "http.response.body", "body": b"null"}


@pytest.mark.parametrize(
    ("before", "after", "status", "outcome", "bytes_"),
    [
        # vLLM answers who has left with the JSON null, and 200.
        ([], [START, LAST], None, "cancelled", 0),
        ([START, PART], [PART, LAST], 200, "cancelled", 4),
        ([START, LAST], [], 200, "ok", 4),
    ],
    ids=["before its answer", "in the middle of a stream", "after its answer"],
)
async def test_a_client_that_leaves_has_cancelled(
    before: list[Any], after: list[Any], status: int | None, outcome: str, bytes_: int
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in before:
            await send({**message})
        assert await receive() == GONE
        for message in after:
            await send({**message})
        Visit.of(scope).end("ok", 3)

    async def receive() -> Any:
        return GONE

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    lines = Lines()
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": []}
    await Audit(app, lines)(scope, receive, send)
    (line,) = lines.kept
    assert (line["status"], line["outcome"], line["bytes"]) == (status, outcome, bytes_)
    assert len(sent) == len(before)
    assert Visit.of(scope).outcome == outcome


async def test_liveness_leaves_no_line() -> None:
    lines = Lines()
    await ask(make_app(lines), "/health")
    assert lines.kept == []


@pytest.mark.parametrize("terminal", [False, True])
def test_lines_are_json_unless_somebody_looks(
    terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    stdout = io.TextIOWrapper(written, write_through=True)
    monkeypatch.setattr(stdout, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stdout", stdout)
    audit_logger().info("request", status=200, route="/v1/score")
    text = written.getvalue().decode()
    assert text.endswith("\n")
    if terminal:
        assert "/v1/score" in text
    else:
        line = orjson.loads(text)
        assert (line["event"], line["status"], line["route"]) == ("request", 200, "/v1/score")
        assert line["timestamp"].endswith("Z")


@pytest.mark.parametrize(
    ("raised", "began", "status", "outcome"),
    [
        (KeyError("broken"), False, 500, "server_error"),
        (KeyError("broken"), True, 200, "server_error"),
        (ClientDisconnect(), False, None, "cancelled"),
    ],
)
async def test_what_raises_is_the_servers_error(
    raised: Exception, began: bool, status: int | None, outcome: str
) -> None:
    async def raising(_scope: Any, _receive: Any, send: Any) -> None:
        if began:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise raised

    async def receive() -> Any:
        raise AssertionError

    async def send(_message: Any) -> None:
        pass

    lines = Lines()
    scope = {"type": "http", "method": "GET", "path": "/v1/tokens", "headers": []}
    with pytest.raises(type(raised)):
        await Audit(raising, lines)(scope, receive, send)
    (line,) = lines.kept
    assert (line["status"], line["outcome"]) == (status, outcome)


@pytest.mark.parametrize(
    ("path", "status"), [("/whole", None), ("/raises", None), ("/stream", 200)]
)
async def test_a_client_that_leaves_a_real_server_has_cancelled(
    path: str, status: int | None
) -> None:
    begun = asyncio.Event()
    router = APIRouter(route_class=SensefieldRoute)

    @router.get("/raises")
    @with_cancellation
    async def raises(raw_request: Request) -> str:
        begun.set()
        await asyncio.Event().wait()
        return "never"  # and vLLM's None is no text, which FastAPI raises for

    @router.get("/whole", response_model=None)
    @with_cancellation
    async def whole(raw_request: Request) -> str:
        begun.set()
        await asyncio.Event().wait()
        return "never"

    @router.get("/stream")
    async def stream() -> StreamingResponse:
        async def events() -> AsyncIterator[bytes]:
            yield b"data: {}\n\n"
            begun.set()
            await asyncio.Event().wait()

        return StreamingResponse(events(), media_type="text/event-stream")

    app = FastAPI()
    app.include_router(router)
    lines = Lines()
    behind: Any = Audit(Outgoing(app), lines)
    config = uvicorn.Config(behind, port=free_port(), lifespan="off", log_level="critical")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve())
    await until(lambda: server.started)
    _, writer = await asyncio.open_connection("127.0.0.1", config.port)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    await begun.wait()
    writer.close()
    await until(lambda: bool(lines.kept))
    server.should_exit = True
    await serving
    (line,) = lines.kept
    assert (line["outcome"], line["status"]) == ("cancelled", status)
