"""An engine that hangs, and a clock that jumps."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.faults.report import Report
from tests.faults.streams import Watched, ask, client_of, completion, seconds, settle, watch
from tests.faults.supervisor import FLAGS, STALL_SECONDS, process_of
from tests.integration.servers import REPOSITORY, OwnServer, serving
from tests.waiting import PATIENCE_SECONDS, until

pytestmark = pytest.mark.xdist_group("faults")


@pytest.mark.parametrize("kind", ["EngineCore", "Worker"])
async def test_an_engine_that_hangs_is_told_and_recovers(
    server: OwnServer, report: Report, kind: str, full: bool
) -> None:
    if kind == "Worker" and not full:
        pytest.skip("only with --full: it takes as long again")
    process = process_of(server, kind)
    expected = f"after {STALL_SECONDS} s without a sign: 504, errors in streams, not ready"
    with report.row(f"SIGSTOP of the {kind}, then SIGCONT", expected) as row:
        streams = [Watched() for _ in range(4)]
        async with client_of(server) as client:
            running = [
                asyncio.create_task(watch(client, completion(at, 400, n=2, temperature=1), stream))
                for at, stream in enumerate(streams)
            ]
            whole = asyncio.create_task(client.post("/v1/completions", json=completion(9, 400)))
            await until(lambda: all(stream.texts for stream in streams), "the streams to begin")
            assert (await client.get("/ready")).is_success
            os.kill(process, signal.SIGSTOP)
            stopped = time.monotonic()
            try:
                answer = await whole
                assert answer.status_code == 504, answer.text
                told = seconds(stopped)
                await asyncio.gather(*running)
                for path in ("/ready", "/v1/completions"):
                    method = "GET" if path == "/ready" else "POST"
                    refused = await client.request(method, path, json=completion())
                    assert refused.status_code == 503
                    assert refused.headers["retry-after"]
                    assert refused.json()["error"]["code"] == "engine_stalled"
                assert (await client.get("/health")).is_success
            finally:
                os.kill(process, signal.SIGCONT)
            continued = time.monotonic()
            await until(partial(is_ready, client), "the engine to answer again")
            ready = seconds(continued)
            await settle(client)
        for stream in streams:
            assert stream.error is not None
            assert "has not answered" in stream.error["message"]
            assert (stream.done, stream.finish_reasons) == (False, [])
        row.observed = f"504 and errors after {told}; ready {ready} after SIGCONT, nothing left"


@pytest.mark.usefixtures("only_full")
async def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, report: Report) -> None:
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    clock = tmp_path / "clock"
    environment = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "PYTHONPATH": str(REPOSITORY),
    }
    expected = "the stream goes on, with the same text; the server stays ready"
    with report.row("the clock jumps a day ahead, then two back", expected) as row:
        if library is None:
            pytest.skip("libfaketime is not installed")
        clock.write_text("+0")
        with serving(tmp_path, FLAGS, environment) as server:
            async with client_of(server) as client:
                whole = await ask(client, tokens=60)
                seen = Watched()
                stream = asyncio.create_task(watch(client, completion(0, 60), seen))
                days: set[str] = set()
                for texts, offset in ((5, "+1d"), (20, "-1d"), (35, "+0")):
                    await until(partial(has_texts, seen, texts), "more of the text")
                    clock.write_text(offset)
                    days.add(await another_day(client, days))
                await stream
        assert (seen.done, seen.error) == (True, None)
        assert "".join(seen.texts) == whole["choices"][0]["text"]
        row.observed = "the same text, ready at each"


async def is_ready(client: httpx.AsyncClient) -> bool:
    return (await client.get("/ready")).is_success


def has_texts(watched: Watched, count: int) -> bool:
    return len(watched.texts) >= count


async def another_day(client: httpx.AsyncClient, days: set[str]) -> str:
    """Return the server's day, once it is none of these; it must be ready all the while."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            answer = await client.get("/ready")
            assert answer.is_success
            if (day := answer.headers["date"][:16]) not in days:
                return day
