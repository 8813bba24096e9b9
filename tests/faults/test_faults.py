"""What is done to a server, from the mildest fault to the last, and what it makes of it.

One server takes all that it should survive; a fault that ends it comes late in this file, and
the next test starts another on the same store. ``--full`` adds the faults that cost a server
or a minute, widens the others, and writes docs/faults/faults.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import safetensors.numpy

from loadtests.processes import living, resident_bytes
from tests.faults.conftest import mount
from tests.faults.raising import TRIGGER
from tests.faults.report import Report
from tests.faults.streams import (
    PATIENCE_SECONDS,
    Watched,
    ask,
    client_of,
    completion,
    metric,
    settle,
    until,
    watch,
)
from tests.faults.supervisor import FLAGS, SLOTS, STALL_SECONDS, Supervisor, process_of
from tests.integration.servers import MODEL, REPOSITORY, Server, serving

LEAVING, LEAVING_FULL = 24, 200
RUNNING = 50
EXIT_SECONDS = 10
ANSWER_SECONDS = 5
LAYERS = (10, 20)
END = [{"token_id": 2}]
"""The model's end of turn."""
STEERED = {
    "bias": [{"text": " river", "add": 4.0}, {"token_id": 28, "add": 1.0}],
    "steer": [
        {"vector": "kept", "strength": 0.4},
        {"vector": "kept", "strength": 2.0, "at": "residual"},
    ],
}


@pytest.fixture(scope="module")
def vector() -> bytes:
    """A vector that is stored before the first fault, and is to outlive all of them."""
    rng = np.random.default_rng(7)
    layers = {f"layer.{at}": rng.standard_normal(576).astype(np.float32) for at in LAYERS}
    return safetensors.numpy.save(layers)


@pytest.fixture
def server(supervisor: Supervisor, vector: bytes) -> Server:
    """The server, with the vector in its store."""
    running = supervisor.server()
    with httpx.Client(base_url=running.url, timeout=PATIENCE_SECONDS) as client:
        if client.get("/v1/vectors/kept").status_code == 404:
            client.put("/v1/vectors/kept", content=vector).raise_for_status()
    return running


@pytest.fixture
def only_full(full: bool) -> None:
    """Skip what is too long for every day."""
    if not full:
        pytest.skip("only with --full: run `make faults`")


def seconds(since: float, until_: float | None = None) -> str:
    return f"{(time.monotonic() if until_ is None else until_) - since:.1f} s"


async def test_clients_that_leave_take_their_requests_with_them(
    server: Server, report: Report, full: bool
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


async def test_steering_survives_preemption(server: Server, report: Report) -> None:
    with report.row("preemption of requests with bias and steering", "the same tokens") as row:
        prompts = [
            " ".join(f"Item {at} of list {number}." for at in range(12)) for number in range(11)
        ]
        async with client_of(server) as client:
            body: dict[str, Any] = {"tokens": 56, "logit_control": STEERED}
            alone = [await ask(client, prompt=prompt, **body) for prompt in prompts[:3]]
            before = await metric(client, "vllm:num_preemptions_total")
            asked = (ask(client, prompt=prompt, **body) for prompt in prompts)
            beside = await asyncio.gather(*asked)
            preempted = await metric(client, "vllm:num_preemptions_total") - before
        assert preempted > 0, "nothing was preempted: this test could not fail"
        assert [one["choices"] for one in alone] == [one["choices"] for one in beside[:3]]
        row.observed = f"the same tokens of {len(alone)} requests, {preempted:.0f} preempted"


async def test_a_program_without_a_way_out_ends_its_own_request(
    server: Server, report: Report
) -> None:
    with report.row("suppression against a grammar, and of the end", "that request alone") as row:
        neighbour = Watched()
        doomed = {
            "structured_outputs": {"choice": ["yes", "no"]},
            "logit_control": {"suppress": [{"text": "y"}, {"text": "n"}]},
        }
        endless = {"ignore_eos": False, "logit_control": {"suppress": END}}
        async with client_of(server) as client:
            beside = asyncio.create_task(watch(client, completion(1, 60), neighbour))
            for choices in (1, 2):
                with pytest.raises(openai.APIError) as raised:
                    await read_to_end(server, completion(n=choices, temperature=1) | doomed)
                assert raised.value.param == "logit_control.suppress"
            capped = await ask(client, tokens=60, **endless)
            await beside
        assert capped["choices"][0]["finish_reason"] == "length"
        assert neighbour.done
        assert neighbour.finish_reasons == ["length"]
        row.observed = "an error in its stream; text up to the cap; the neighbour whole"


def openai_of(server: Server) -> openai.AsyncOpenAI:
    url = f"{server.url}/v1"
    return openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=PATIENCE_SECONDS)


async def read_to_end(server: Server, body: dict[str, Any]) -> None:
    """Stream completions with OpenAI's own client."""
    async with openai_of(server) as client:
        # What OpenAI's completions do not know, like `ignore_eos`, goes beside the rest.
        stream = await client.completions.create(
            model=MODEL, prompt="", stream=True, extra_body=body
        )
        async for _ in stream:
            pass


async def test_a_full_disk_refuses_vectors_and_serves_on(
    server: Server, store: Path, vector: bytes, report: Report
) -> None:
    vectors = store / "vectors"
    with report.row("the disk of the vector store is full", "507; all else goes on") as row:
        if not os.path.ismount(vectors):
            pytest.skip("a small disk takes a privilege to mount, which is missing here")
        ballast = vectors / "ballast"
        async with client_of(server) as client:
            fill(ballast)
            try:
                other = safetensors.numpy.save({"layer.3": np.ones(576, np.float32)})
                refused = await client.put("/v1/vectors/late", content=other)
                assert refused.status_code == 507, refused.text
                await ask(client, logit_control=STEERED)
                assert (await client.get("/ready")).is_success
            finally:
                ballast.unlink()
            stored = await client.put("/v1/vectors/late", content=other)
            assert stored.status_code == 201, stored.text
            assert (await client.delete("/v1/vectors/late")).status_code == 204
        row.observed = "507; steering went on; stored once there was room"


def fill(file: Path) -> None:
    """Write until the disk is full."""
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as ballast:
        while True:
            ballast.write(bytes(4096))


def test_a_store_that_cannot_be_written_is_told_before_the_model_is_loaded(
    tmp_path: Path, report: Report
) -> None:
    with report.row(
        "a read-only store at the start", "exit 1 before a model is loaded, and why"
    ) as row:
        if not mount(tmp_path, "-t", "tmpfs", "-o", "ro"):
            pytest.skip("a read-only disk takes a privilege to mount, and root can write the rest")
        try:
            command = Path(sys.executable).parent / "sensefield"
            started = time.monotonic()
            ended = subprocess.run(
                [command, "serve", "--vectors-dir", tmp_path],
                capture_output=True,
                text=True,
                timeout=PATIENCE_SECONDS,
                check=False,
            )
            row.observed = f"exit {ended.returncode} after {seconds(started)}, and why"
        finally:
            subprocess.run(["umount", tmp_path], check=True)
        assert ended.returncode == 1
        assert f"vectors_dir {tmp_path} cannot be written" in ended.stderr
        assert "Read-only file system" in ended.stderr
        assert "EngineCore" not in ended.stdout + ended.stderr


@pytest.mark.usefixtures("only_full")
async def test_slow_readers_slow_only_themselves(server: Server, report: Report) -> None:
    count, tokens, asked = 100, 32, 100
    expected = "others' p99 at most twice as long; memory within the budget"
    with report.row(f"{count} readers of the whole vocabulary at 1 KB/s", expected) as row:
        async with client_of(server) as client:
            quick = await latencies(client, asked)
            before = sum(resident_bytes(server.process.pid).values())
            body = completion(tokens=tokens, distribution={"top_k": "all"})
            readers = [asyncio.create_task(read_slowly(server, body)) for _ in range(count)]
            try:
                # Until the engine has made what it was asked for, and only the readers are left.
                async with asyncio.timeout(600):
                    while await metric(client, "sensefield_queued_requests") or await metric(
                        client, "vllm:num_requests_running"
                    ):
                        await asyncio.sleep(0.2)
                held = await metric(client, "sensefield_distribution_promised_bytes")
                grown = sum(resident_bytes(server.process.pid).values()) - before
                beside = await latencies(client, asked)
            finally:
                for reader in readers:
                    reader.cancel()
                await asyncio.gather(*readers, return_exceptions=True)
            await settle(client)
        ratio = np.percentile(beside, 99) / np.percentile(quick, 99)
        row.observed = (
            f"p99 {ratio:.2f} times as long; memory grew by {grown / 2**20:.0f} MiB "
            f"of {held / 2**20:.0f} MiB promised"
        )
        assert held > 0
        assert ratio <= 2
        assert grown <= held


async def latencies(client: httpx.AsyncClient, count: int) -> list[float]:
    """Return the seconds of short requests, one after another."""
    taken = []
    for number in range(count):
        started = time.monotonic()
        await ask(client, number=number)
        taken.append(time.monotonic() - started)
    return taken


async def read_slowly(server: Server, body: dict[str, Any]) -> None:
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


@pytest.mark.parametrize("kind", ["EngineCore", "Worker"])
async def test_an_engine_that_hangs_is_told_and_recovers(
    server: Server, report: Report, kind: str, full: bool
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
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not (await client.get("/ready")).is_success:
                    await asyncio.sleep(0.02)  # between two looks at a condition
            ready = seconds(continued)
            await settle(client)
        for stream in streams:
            assert stream.error is not None
            assert "has not answered" in stream.error["message"]
            assert (stream.done, stream.finish_reasons) == (False, [])
        row.observed = f"504 and errors after {told}; ready {ready} after SIGCONT, nothing left"


async def test_a_killed_engine_is_told_to_all_and_ends_the_process(
    server: Server, report: Report
) -> None:
    expected = f"an error ends every stream within 1 s; exit code 1 within {EXIT_SECONDS} s"
    with report.row(f"kill -9 of the engine under {RUNNING} streams", expected) as row:
        engine = process_of(server, "EngineCore")
        row.observed = await die(server, lambda: os.kill(engine, signal.SIGKILL), RUNNING)


@pytest.mark.usefixtures("only_full")
async def test_a_processor_that_raises_ends_like_a_killed_engine(
    server: Server, report: Report
) -> None:
    expected = "the same: vLLM runs it for the whole batch at once"
    with report.row("somebody else's logits processor raises", expected) as row:

        def trigger() -> None:
            body = completion(vllm_xargs={TRIGGER: 1})
            httpx.post(f"{server.url}/v1/completions", json=body, timeout=PATIENCE_SECONDS)

        # So few that it does not wait for its turn.
        row.observed = await die(server, trigger, 4)


async def die(server: Server, end: Callable[[], None], count: int) -> str:
    """End an engine under so many streams; return what was seen, once it was checked."""
    streams = [Watched() for _ in range(count)]
    group = server.process.pid
    async with client_of(server) as client:
        running = [
            asyncio.create_task(watch(client, completion(at, 300), stream))
            for at, stream in enumerate(streams)
        ]
        twice = completion(tokens=400, n=2, temperature=1)
        raising = asyncio.gather(
            read_to_end(server, twice), read_chat(server), return_exceptions=True
        )
        # As many as run at once have begun, the others wait.
        least = min(count, SLOTS // 2)
        await until(lambda: sum(bool(s.texts) for s in streams) >= least, "streams to begin")
        struck = time.monotonic()
        await asyncio.to_thread(end)
        await asyncio.gather(*running)
        assert [type(raised) for raised in await raising] == [openai.APIError] * 2
    told = max(stream.ended_at for stream in streams)
    code = await asyncio.to_thread(server.process.wait, PATIENCE_SECONDS)
    exited = time.monotonic()
    await until(lambda: not living(group), "the other processes to end")
    gone = time.monotonic()
    for stream in streams:
        assert stream.error is not None
        assert stream.error["type"] == "InternalServerError"
        assert (stream.done, stream.finish_reasons) == (False, [])
    assert code == 1
    assert gone - struck <= EXIT_SECONDS
    return (
        f"all streams after {seconds(struck, told)}; exit code {code} after "
        f"{seconds(struck, exited)}, no process left after {seconds(struck, gone)}"
    )


async def read_chat(server: Server) -> None:
    """Stream a long chat with two choices with OpenAI's own client."""
    async with openai_of(server) as client:
        stream = await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Tell me a long story."}],
            max_tokens=400,
            n=2,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        async for _ in stream:
            pass


async def test_the_next_server_has_the_vectors(
    server: Server, vector: bytes, report: Report
) -> None:
    with report.row("a new server on the old store", "its vectors as they were") as row:
        async with client_of(server) as client:
            names = [entry["name"] for entry in (await client.get("/v1/vectors")).json()["data"]]
            assert names == ["kept"]
            content = (await client.get("/v1/vectors/kept/content")).content
            for name, layer in safetensors.numpy.load(vector).items():
                assert np.array_equal(safetensors.numpy.load(content)[name], layer)
            await ask(client, logit_control=STEERED)
        row.observed = "the same values, and steering with them"


@pytest.mark.usefixtures("only_full")
async def test_a_killed_api_process_leaves_no_orphans(server: Server, report: Report) -> None:
    expected = "no process left; streams break off"
    with report.row("kill -9 of the API process under streams", expected) as row:
        group = server.process.pid
        streams = [Watched() for _ in range(8)]
        async with client_of(server) as client:
            running = [
                asyncio.create_task(watch(client, completion(at, 300), stream))
                for at, stream in enumerate(streams)
            ]
            await until(lambda: all(stream.texts for stream in streams), "the streams to begin")
            server.process.kill()
            struck = time.monotonic()
            ends = await asyncio.gather(*running, return_exceptions=True)
            assert all(isinstance(end, httpx.TransportError) for end in ends)
        server.process.wait(PATIENCE_SECONDS)
        await until(lambda: not living(group), "the other processes to end")
        row.observed = f"no process left after {seconds(struck)}"


async def test_a_stop_finishes_what_was_accepted(server: Server, report: Report) -> None:
    expected = "accepted requests finish, newcomers get 503, exit code 0"
    with report.row("SIGTERM under load", expected) as row:
        count, tokens = 20, 40  # more than run at once: some are queued
        streams = [Watched() for _ in range(count)]
        group = server.process.pid
        async with client_of(server) as client:
            running = [
                asyncio.create_task(watch(client, completion(at, tokens), stream))
                for at, stream in enumerate(streams)
            ]

            async def accepted() -> bool:
                return await metric(client, "sensefield_in_flight_requests") >= count

            async with asyncio.timeout(PATIENCE_SECONDS):
                while not await accepted():
                    pass
            server.process.terminate()
            struck = time.monotonic()
            async with asyncio.timeout(PATIENCE_SECONDS):
                while (await client.get("/ready")).status_code != 503:
                    pass
            newcomers = [await client.post("/v1/completions", json=completion()) for _ in range(5)]
            unready = await client.get("/ready")
            await asyncio.gather(*running)
            finished = time.monotonic()
        for refused in (*newcomers, unready):
            assert refused.status_code == 503
            assert refused.headers["retry-after"]
            assert refused.json()["error"]["code"] == "draining"
        for stream in streams:
            assert (stream.done, stream.error) == (True, None)
            assert stream.finish_reasons == ["length"]
        code = await asyncio.to_thread(server.process.wait, PATIENCE_SECONDS)
        await until(lambda: not living(group), "the other processes to end")
        assert code == 0
        row.observed = (
            f"{count} finished after {seconds(struck, finished)}, 503 meanwhile, "
            f"exit code {code} after {seconds(struck)}"
        )


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
