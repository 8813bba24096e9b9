"""The client against a server of a few lines: what it counts and what it refuses."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from loadtests.cases.chats import chat
from loadtests.measure.client import RequestError, connected
from loadtests.measure.stock import attempt

Serve = Callable[[bytes], Awaitable[str]]
ROLE = b'data: {"choices":[{"delta":{"role":"assistant"}}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4}}\n\n'
DONE = b"data: [DONE]\n\n"


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Return a function that serves a fixed answer and returns the address."""
    started: list[TestServer] = []

    async def start(answer: bytes) -> str:
        async def handle(_: web.Request) -> web.Response:
            return web.Response(body=answer)

        app = web.Application()
        app.router.add_post("/v1/chat/completions", handle)
        server = TestServer(app)
        await server.start_server()
        started.append(server)
        return str(server.make_url("")).rstrip("/")

    yield start
    for server in started:
        await server.close()


async def test_counts_tokens_bytes_and_time(serve: Serve) -> None:
    answer = ROLE + b"data: {}\n\n" * 1000 + USAGE + DONE
    url = await serve(answer)
    async with connected() as client:
        run = await client.run(url, [chat("sea", 4), chat("sky", 4)])
    assert run.tokens == 8
    assert run.received_bytes == 2 * len(answer)
    assert run.rate == pytest.approx(8 / run.seconds)
    assert len(run.ttfts) == 2
    assert len(run.itls) == 2 * 999
    assert 0 < min(run.ttfts) <= max(run.ttfts) < run.seconds


async def test_a_token_is_timed_when_it_comes() -> None:
    """The second token is sent once the first has been read, and time has passed."""
    gap = 0.05

    async def handle(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(ROLE + b"data: {}\n\n")
        await asyncio.sleep(gap)
        await answer.write(b"data: {}\n\n" + USAGE + DONE)
        return answer

    app = web.Application()
    app.router.add_post("/v1/chat/completions", handle)
    async with TestServer(app) as server, connected() as client:
        run = await client.run(str(server.make_url("")).rstrip("/"), [chat("sea", 4)])
    (itl,), (ttft,) = run.itls, run.ttfts
    # The sender's clock and ours: it slept at least so long, give or take a look at the clock.
    assert gap / 2 < itl < run.seconds
    assert ttft + itl <= run.seconds


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (USAGE, "ended early"),
        (DONE, "ended early"),
        (USAGE.replace(b":4", b":3") + DONE, "ended early"),
        (b'data: {"error": {}}\n\n' + DONE, "ended early"),
        (USAGE + DONE, "holds no wanted"),
    ],
)
async def test_refuses_answers_that_are_not_what_was_asked(
    serve: Serve, answer: bytes, message: str
) -> None:
    url = await serve(answer)
    async with connected() as client:
        with pytest.raises(RequestError, match=message):
            await client.run(url, [chat("sea", 4, b"wanted")])


async def test_a_refused_request_says_why(serve: Serve) -> None:
    url = await serve(b"")
    async with connected() as client:
        with pytest.raises(RequestError, match="HTTP 404"):
            await client.run(f"{url}/nowhere", [chat("sea", 4)])


async def test_a_failure_of_the_stock_server_is_no_failure(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    url = await serve(b"")
    async with connected() as client:
        assert await attempt(client.run(url, [chat("sea", 4)])) is None
    assert "stock vLLM failed: RequestError" in capsys.readouterr().err
