"""A crowd of requests against a server that answers some of them wrongly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from loadtests.measure.client import Client, connected
from loadtests.storm.crowd import DEAD, MOST_FAILURES, fire, rage, together
from loadtests.storm.shot import Shot

OK, WRONG, ENDLESS = "/v1/models", "/wrong", "/endless"
REFUSAL = {"error": {"message": "no", "type": "t", "param": None, "code": None}}


class Answering:
    """Answers by the path; ``alive`` is its health."""

    def __init__(self) -> None:
        self.alive = True

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/health":
            return web.Response(status=200 if self.alive else 503)
        if request.path == WRONG:
            return web.json_response(REFUSAL, status=400)
        if request.path == ENDLESS:
            return await self._never_end(request)
        return web.json_response({})

    async def _never_end(self, request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse()
        await stream.prepare(request)
        await asyncio.Event().wait()
        return stream


@pytest.fixture
def answering() -> Answering:
    return Answering()


@pytest.fixture
async def url(answering: Answering) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answering.answer)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with connected() as found:
        yield found


async def test_all_that_is_answered_is_counted(client: Client, url: str) -> None:
    storm = await rage(client, url, lambda at: Shot(at, OK, None, "GET"), 0.05, 3)
    assert storm.outcomes["answered"] == storm.outcomes.total() > 0
    assert not storm.failures
    assert not storm.flying


async def test_a_storm_ends_with_its_failures(client: Client, url: str) -> None:
    storm = await rage(client, url, lambda at: Shot(at, WRONG, {}), 60, 2)
    assert len(storm.failures) in (MOST_FAILURES, MOST_FAILURES + 1)
    failure = storm.failures[-1]
    assert failure.signature == "400 t None (no)"
    assert failure.shot in failure.crowd


async def test_a_dead_engine_ends_it_at_once(
    client: Client, url: str, answering: Answering
) -> None:
    answering.alive = False
    storm = await rage(client, url, lambda at: Shot(at, WRONG, {}), 60, 1)
    assert [failure.signature for failure in storm.failures] == [DEAD]


async def test_a_client_leaves(client: Client, url: str) -> None:
    shot = Shot(1, ENDLESS, {}, patience=0.01)
    assert await fire(client, url, shot) == "left by its client"


async def test_together_names_what_went_wrong(client: Client, url: str) -> None:
    shots = [Shot(1, OK, None, "GET"), Shot(2, WRONG, {})]
    assert await together(client, url, shots) == {"400 t None (no)"}
    assert await together(client, url, shots[:1]) == set()
