"""How much comes in: sizes, rates, requests at once; and that all of it is given back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from service.access.admission import MAX_HEAD, MAX_OF_PAGE, Admission
from service.access.keys import Key
from service.access.visit import Visit
from service.settings import Settings

PATH = "/v1/score"


class Waiting:
    """An app that reads the body, then answers once it is let."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.started = asyncio.Semaphore(0)
        self.read = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            self.read += len(message.get("body", b""))
            more = message.get("more_body", False)
        self.started.release()
        await self.may_answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})


def client_of(app: Any, name: str | None = None) -> httpx.AsyncClient:
    """Return a client whose requests carry a key."""

    async def keyed(scope: Any, receive: Any, send: Any) -> None:
        if name is not None:
            Visit.of(scope).key = Key.of(name, ["inference"], name)
        await app(scope, receive, send)

    return httpx.AsyncClient(transport=httpx.ASGITransport(keyed), base_url="http://test")


def admission(app: Any, **settings: Any) -> Admission:
    return Admission(app, Settings(**settings))


@pytest.fixture
def app() -> Waiting:
    return Waiting()


async def chunks(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * 10


@pytest.mark.parametrize(("size", "status"), [(0, 200), (100, 200), (101, 413)])
async def test_a_body_of_a_told_size(app: Waiting, size: int, status: int) -> None:
    app.may_answer.set()
    async with client_of(admission(app, max_body_bytes=100)) as client:
        answer = await client.post(PATH, content=b"x" * size)
    assert answer.status_code == status
    assert app.read == (size if status == 200 else 0)


@pytest.mark.parametrize(("count", "status"), [(10, 200), (11, 413), (1000, 413)])
async def test_a_body_of_no_told_size(app: Waiting, count: int, status: int) -> None:
    app.may_answer.set()
    async with client_of(admission(app, max_body_bytes=100)) as client:
        answer = await client.post(PATH, content=chunks(count))
    assert answer.status_code == status
    assert app.read <= 100
    if status == 413:
        assert answer.json()["error"]["param"] == "body"


@pytest.mark.parametrize("told", [True, False])
async def test_a_body_beyond_the_room_of_all_is_a_503(app: Waiting, told: bool) -> None:
    content: Any = b"x" * 60 if told else chunks(6)
    async with client_of(admission(app, max_body_bytes=80, bodies_bytes=100)) as client:
        running = asyncio.create_task(client.post(PATH, content=b"x" * 60))
        await app.started.acquire()
        refused = await client.post(PATH, content=content)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        error = refused.json()["error"]
        assert (error["code"], error["param"]) == ("bodies_full", "body")
        app.may_answer.set()
        assert (await running).status_code == 200
        assert (await client.post(PATH, content=b"x" * 80)).status_code == 200


async def test_what_an_app_raises_of_a_body_without_room_is_nobodys_answer() -> None:
    async def reading(_scope: Any, receive: Any, _send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        raise RuntimeError("the client has left")

    async with client_of(admission(reading, max_body_bytes=100)) as client:
        assert (await client.post(PATH, content=chunks(11))).status_code == 413


async def test_an_answer_that_has_begun_is_not_begun_again() -> None:
    sent = []

    async def answering(_scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.body", "body": b"to nobody"})

    async def receive() -> Any:
        return {"type": "http.request", "body": b"x" * 101, "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    await admission(answering, max_body_bytes=100)(scope, receive, send)
    assert sent == ["http.response.start"]


async def test_a_vectors_file_is_left_to_its_route(app: Waiting) -> None:
    app.may_answer.set()
    async with client_of(admission(app, max_body_bytes=100)) as client:
        assert (await client.put("/v1/vectors/a", content=b"x" * 101)).status_code == 200


@pytest.mark.parametrize("path", ["/", "/v1/vectorsand", "/v1/controls/a"])
async def test_another_file_has_the_size_of_a_body(app: Waiting, path: str) -> None:
    app.may_answer.set()
    async with client_of(admission(app, max_body_bytes=100)) as client:
        assert (await client.put(path, content=b"x" * 101)).status_code == 413
        assert (await client.put(path, content=chunks(11))).status_code == 413
        assert (await client.put(path, content=b"x" * 100)).status_code == 200


@pytest.mark.parametrize("where", ["url", "headers"])
async def test_a_head_beyond_the_limit_is_a_431(app: Waiting, where: str) -> None:
    app.may_answer.set()
    long = "x" * MAX_HEAD
    url, headers = (f"{PATH}?{long}", {}) if where == "url" else (PATH, {"x-long": long})
    async with client_of(admission(app)) as client:
        assert (await client.get(url, headers=headers)).status_code == 431
        assert (await client.get(PATH)).status_code == 200


async def test_the_place_after_the_last_is_a_503(app: Waiting) -> None:
    guarded = admission(app, max_requests=2)
    async with client_of(guarded, "alice") as alice, client_of(guarded, "bob") as bob:
        running = [asyncio.create_task(each.get(PATH)) for each in (alice, bob)]
        for _ in running:
            await app.started.acquire()
        refused = await alice.get(PATH)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert refused.json()["error"]["code"] == "queue_full"
        app.may_answer.set()
        assert [(await each).status_code for each in running] == [200, 200]
        assert (await alice.get(PATH)).status_code == 200


async def test_the_pages_files_take_no_place_of_those_who_have_a_key(app: Waiting) -> None:
    guarded = admission(app, max_requests=1, key_rate="1/hour")
    async with client_of(guarded, "alice") as alice, client_of(guarded) as stranger:
        reading = [asyncio.create_task(stranger.get("/playground/a")) for _ in range(MAX_OF_PAGE)]
        for _ in reading:
            await app.started.acquire()
        refused = await stranger.get("/playground")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "queue_full")
        app.may_answer.set()
        assert (await alice.get(PATH)).status_code == 200
        assert {(await each).status_code for each in reading} == {200}
        assert (await stranger.get("/playground")).status_code == 200


async def test_a_browsers_question_counts_for_no_key(app: Waiting) -> None:
    app.may_answer.set()
    asking = {"origin": "http://app.example", "access-control-request-method": "POST"}
    async with client_of(admission(app, key_rate="1/hour")) as client:
        for _ in range(3):
            assert (await client.options("/v1/score", headers=asking)).status_code == 200
        assert (await client.options("/")).status_code == 200
        assert [(await client.options("/v1/score")).status_code for _ in range(2)] == [200, 429]


async def test_a_key_has_so_many_at_once_and_takes_no_others_place(app: Waiting) -> None:
    guarded = admission(app, key_concurrency=1)
    async with client_of(guarded, "alice") as alice, client_of(guarded, "bob") as bob:
        running = [asyncio.create_task(each.get(PATH)) for each in (alice, bob)]
        for _ in running:
            await app.started.acquire()
        refused = await alice.get(PATH)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        running[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await running[0]
        app.may_answer.set()
        assert (await alice.get(PATH)).status_code == 200
        assert (await running[1]).status_code == 200


async def test_a_key_has_so_many_in_a_time(app: Waiting) -> None:
    app.may_answer.set()
    guarded = admission(app, key_rate="3/hour")
    async with client_of(guarded, "alice") as alice, client_of(guarded, "bob") as bob:
        statuses = [(await alice.get(PATH)).status_code for _ in range(4)]
        assert statuses == [200, 200, 200, 429]
        refused = await alice.get(PATH)
        assert 3500 < int(refused.headers["retry-after"]) <= 3600
        assert refused.json()["error"]["type"] == "rate_limit_error"
        assert (await bob.get(PATH)).status_code == 200
        assert [(await alice.get(path)).status_code for path in ("/health", "/ready")] == [200] * 2


def test_a_rate_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="key_rate"):
        Settings(key_rate="often")
