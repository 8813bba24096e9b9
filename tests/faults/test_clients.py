"""Clients that leave, that read slowly, or that come all at once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from loadtests.measure.processes import resident_bytes
from tests.faults.report import Report
from tests.faults.streams import Watched, ask, client_of, completion, metric, settle, watch
from tests.integration.servers import OwnServer, serving
from tests.waiting import until

pytestmark = pytest.mark.xdist_group("faults")

LEAVING, LEAVING_FULL = 24, 200
ANSWER_SECONDS = 5
PLACES = 32


async def test_clients_that_leave_take_their_requests_with_them(
    server: OwnServer, report: Report, full: bool
) -> None:
    count = LEAVING_FULL if full else LEAVING
    expected = f"KV cache use back to 0, the next answer within {ANSWER_SECONDS} s"
    fault = f"{count} clients leave: queued, in the prompt, in the text"

    async def leave(client: httpx.AsyncClient, number: int) -> None:
        prompt = " ".join(f"Item {at} of list {number}." for at in range(20))
        body = completion(tokens=200, prompt=prompt, stream=number % 4 > 0)
        if not body["stream"]:
            with contextlib.suppress(httpx.TimeoutException):
                await client.post("/v1/completions", json=body, timeout=0.5)
            return
        async with client.stream("POST", "/v1/completions", json=body) as answer:
            lines = answer.aiter_lines()
            for _ in range(number % 4 - 1):  # none: as its prompt is through
                await anext(lines)

    with report.row(fault, expected) as row:
        async with client_of(server) as client:
            leaving = [asyncio.create_task(leave(client, number)) for number in range(count)]
            # The last are still queued, and leave with their connections.
            await asyncio.wait(leaving[: count // 2])
            for task in leaving[count // 2 :]:
                task.cancel()
            ended = await asyncio.gather(*leaving, return_exceptions=True)
            assert all(end is None or isinstance(end, asyncio.CancelledError) for end in ended)
            asked = time.monotonic()
            await ask(client)
            answered = time.monotonic() - asked
            await settle(client)
        assert "Exception in ASGI application" not in server.log.read_text()
        row.observed = f"back to 0; the next answer took {answered:.1f} s"
        assert not full or answered <= ANSWER_SECONDS


@pytest.mark.usefixtures("only_full")
async def test_slow_readers_slow_only_themselves(server: OwnServer, report: Report) -> None:
    count, tokens, asked = 100, 32, 100
    expected = "others' p99 at most twice as long; memory within the budget"
    plain = completion(tokens=tokens)
    wide = completion(tokens=tokens, distribution={"top_k": "all"})
    with report.row(f"{count} readers of the whole vocabulary at 1 KB/s", expected) as row:
        async with client_of(server) as client:
            quick = await latencies(client, asked)
            async with asking(client, (watch(client, plain, Watched()) for _ in range(count))):
                beside_plain = await latencies_while_running(client)
            before = sum(resident_bytes(server.process.pid).values())
            readers = (read_slowly(server, wide) for _ in range(count))
            async with asking(client, readers):
                beside_wide = await latencies_while_running(client)
                # The engine has made what it was asked for, and only the readers are left.
                held = await metric(client, "sensefield_distribution_promised_bytes")
                grown = sum(resident_bytes(server.process.pid).values()) - before
                beside_readers = await latencies(client, asked)
            await settle(client)
        # They wait behind the load, so few are asked meanwhile.
        making = max(beside_wide) / max(beside_plain)
        reading = np.percentile(beside_readers, 99) / np.percentile(quick, 99)
        row.observed = (
            f"p99 {reading:.2f} times as long; while their rows were made others waited at most "
            f"{making:.2f} times as long as beside as many plain requests; memory grew by "
            f"{grown / 2**20:.0f} MiB of {held / 2**20:.0f} MiB promised"
        )
        assert held > 0
        assert making <= 2
        assert reading <= 2
        assert grown <= held


@pytest.mark.usefixtures("only_full")
async def test_ten_times_as_many_as_there_is_room_for(tmp_path: Path, report: Report) -> None:
    times = 10
    expected = "503 and Retry-After for those without a place; all others answered as if alone"
    with report.row(f"{times * PLACES} requests at once for {PLACES} places", expected) as row:
        flags = ("--max-model-len", "512", "--max-num-seqs", "16", "--max-requests", str(PLACES))
        with serving(tmp_path, flags) as server:
            async with client_of(server) as client:
                bodies = [completion(number, 40) for number in range(PLACES)]
                alone = [await ask(client, number=number, tokens=40) for number in range(PLACES)]
                asked = (client.post("/v1/completions", json=body) for body in bodies * times)
                answers = await asyncio.gather(*asked)
                await settle(client)
        answered = 0
        for answer, by_itself in zip(answers, alone * times, strict=True):
            if answer.is_success:
                answered += 1
                assert answer.json()["choices"] == by_itself["choices"]
            else:
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
                assert answer.json()["error"]["code"] == "queue_full"
        assert PLACES <= answered < len(answers)
        row.observed = f"{answered} answered, each as if alone, {len(answers) - answered} refused"


async def latencies(client: httpx.AsyncClient, count: int) -> list[float]:
    """Return the seconds of short requests, one after another."""
    taken = []
    for number in range(count):
        started = time.monotonic()
        await ask(client, number=number)
        taken.append(time.monotonic() - started)
    return taken


async def latencies_while_running(client: httpx.AsyncClient) -> list[float]:
    """Return the seconds of short requests, one after another, until nothing else is running."""
    taken = []
    while await metric(client, "sensefield_queued_requests") or await metric(
        client, "vllm:num_requests_running"
    ):
        taken += await latencies(client, 1)
    return taken


@asynccontextmanager
async def asking(
    client: httpx.AsyncClient, requests: Iterable[Coroutine[Any, Any, None]]
) -> AsyncIterator[None]:
    """Have requests run beside the context, from when the engine has one until it ends.

    What fails among them fails the context.
    """
    tasks = [asyncio.create_task(request) for request in requests]

    async def is_running() -> bool:
        return await metric(client, "vllm:num_requests_running") > 0

    try:
        await until(is_running, "a request to run")
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(end is None or isinstance(end, asyncio.CancelledError) for end in ended)


async def read_slowly(server: OwnServer, body: dict[str, Any]) -> None:
    """Read a stream's answer at 1 KB/s."""
    url = httpx.URL(server.url)
    reader, writer = await asyncio.open_connection(url.host, url.port, limit=1024)
    content = httpx.Request("POST", server.url, json={**body, "stream": True}).read()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nhost: {url.host}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    writer.write(head.encode() + content)
    try:
        while await reader.read(1024):
            await asyncio.sleep(1)  # the speed itself, not a wait for anything
    finally:
        writer.close()
