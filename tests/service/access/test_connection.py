"""Connections that are slow to say what they want, to a real uvicorn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import uvicorn

from loadtests.measure.servers import free_port
from service.access import connection
from service.settings import settings

SECONDS = 0.2
REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer all alike, later than a head may come."""
    await asyncio.sleep(2 * SECONDS)
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """Yield the port of a server whose clients have a moment for each head."""
    monkeypatch.setenv("SENSEFIELD_RECEIVE_TIMEOUT_SECONDS", str(SECONDS))
    monkeypatch.setitem(uvicorn.config.HTTP_PROTOCOLS, "auto", "")
    settings.cache_clear()
    connection.install()
    config = uvicorn.Config(app, port=free_port(), lifespan="off", log_level="error")
    server = uvicorn.Server(config)
    async with asyncio.TaskGroup() as group:
        group.create_task(server._serve())
        while not server.started:
            await asyncio.sleep(0.01)  # between two looks
        yield config.port
        server.should_exit = True
    settings.cache_clear()


async def ask(port: int, *parts: bytes) -> bytes:
    """Return all that comes until the connection closes, while parts go out one by one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await asyncio.sleep(SECONDS / 20)
        async with asyncio.timeout(60):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    "sent", [b"NONSENSE\r\n\r\n", b"GET / HTTP/1.1\r\nhost: x\r\nno head\r\n\r\n"]
)
async def test_what_is_no_http_is_a_400(port: int, sent: bytes) -> None:
    head, _, body = (await ask(port, sent)).partition(b"\r\n\r\n")
    assert head.lower().startswith(b"http/1.1 400 bad request\r\n")
    assert b"content-type: application/json" in head.lower()
    assert orjson.loads(body)["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "parts", [(), (b"G",), (b"\r\n",) * 6, (b"GET / HTTP/1.1\r\nhost: x\r\n",)]
)
async def test_a_head_that_does_not_come_is_a_408(port: int, parts: tuple[bytes, ...]) -> None:
    head, _, body = (await ask(port, *parts)).partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert lines[0] == b"http/1.1 408 request timeout"
    assert b"connection: close" in lines
    assert b"content-length: %d" % len(body) in lines
    assert orjson.loads(body)["error"]["param"] == "headers"


async def test_each_head_has_its_time_and_an_answer_has_none(port: int) -> None:
    """Also one that came while the answer to the last was still awaited."""
    told = await ask(port, REQUEST, REQUEST, b"GET")
    assert [line for line in told.split(b"\r\n") if line.startswith(b"HTTP")] == [
        *[b"HTTP/1.1 204 No Content"] * 2,
        b"HTTP/1.1 408 Request Timeout",
    ]


@pytest.mark.parametrize("head", [b"GET /", b"GET / HTTP/1.1\r\nx: "])
async def test_a_head_that_only_grows_is_a_431(port: int, head: bytes) -> None:
    """Before its time is over, and before a whole head is kept."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head + b"a" * connection.MOST_HEAD)
    async with asyncio.timeout(60):
        told = await reader.read()
    writer.close()
    assert told.startswith(b"HTTP/1.1 431 ")
    assert orjson.loads(told.partition(b"\r\n\r\n")[2])["error"]["param"] == "headers"


async def test_a_large_body_is_no_large_head(port: int) -> None:
    size = 4 * connection.MOST_HEAD
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size + b"a" * size)
    async with asyncio.timeout(60):
        assert await reader.readexactly(12) == b"HTTP/1.1 204"
    writer.close()


async def test_a_growing_head_behind_a_request_breaks_into_no_answer(port: int) -> None:
    told = await ask(port, REQUEST, b"GET / HTTP/1.1\r\nx: " + b"a" * (2 * connection.MOST_HEAD))
    assert told in (b"", b"HTTP/1.1 204 No Content\r\n\r\n")
