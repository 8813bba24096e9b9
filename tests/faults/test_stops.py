"""What ends a server, and what the next one on its store has."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from itertools import cycle

import httpx
import numpy as np
import openai
import pytest
import safetensors.numpy

from loadtests.measure.processes import living
from tests.faults.raising import TRIGGER
from tests.faults.report import Report
from tests.faults.streams import (
    STEERED,
    Watched,
    ask,
    client_of,
    completion,
    metric,
    openai_of,
    read_to_end,
    seconds,
    watch,
)
from tests.faults.supervisor import SLOTS, Supervisor, process_of
from tests.integration.servers import MODEL, OwnServer
from tests.waiting import PATIENCE_SECONDS, until

pytestmark = pytest.mark.xdist_group("faults")

RUNNING = 50
LONG = {"model": MODEL, "max_tokens": 400, "ignore_eos": True}
STORY = [{"role": "user", "content": "Tell me a long story."}]
WHOLE = [
    ("/v1/chat/completions", LONG | {"messages": STORY}),
    ("/v1/completions", LONG | {"prompt": "The history of the city"}),
    ("/v1/responses", {"model": MODEL, "input": STORY, "max_output_tokens": 400}),
    ("/v1/messages", {"model": MODEL, "messages": STORY, "max_tokens": 400}),
    ("/v1/score", {"prompt": "The history of the city", "continuations": [" begins"] * 64}),
]
"""Requests that wait for their answer when the engine ends."""
TELL_SECONDS, EXIT_SECONDS = 1, 10
LAYERS = 30


@pytest.mark.usefixtures("only_full")
async def test_a_killed_engine_is_told_to_all_and_ends_the_process(
    server: OwnServer, report: Report, full: bool
) -> None:
    expected = (
        f"an error ends every stream within {TELL_SECONDS} s; exit code 1 within {EXIT_SECONDS} s"
    )
    with report.row(f"kill -9 of the engine under {RUNNING} streams", expected) as row:
        engine = process_of(server, "EngineCore")
        row.observed = await die(server, lambda: os.kill(engine, signal.SIGKILL), RUNNING, full)


@pytest.mark.usefixtures("only_full")
async def test_a_processor_that_raises_ends_like_a_killed_engine(
    server: OwnServer, report: Report, full: bool
) -> None:
    expected = "the same: vLLM runs it for the whole batch at once"
    with report.row("somebody else's logits processor raises", expected) as row:

        def trigger() -> None:
            body = completion(vllm_xargs={TRIGGER: 1})
            httpx.post(f"{server.url}/v1/completions", json=body, timeout=PATIENCE_SECONDS)

        # So few that it does not wait for its turn.
        row.observed = await die(server, trigger, 4, full)


async def die(
    server: OwnServer,
    end: Callable[[], None],
    count: int,
    timely: bool,
) -> str:
    """End an engine under so many streams; return what was seen, once it was checked.

    That all were told in time is checked where nothing else keeps the machine busy.
    """
    streams = [Watched() for _ in range(count)]
    group = server.process.pid
    async with client_of(server) as client:
        running = [
            asyncio.create_task(watch(client, completion(at, 450), stream))
            for at, stream in enumerate(streams)
        ]
        twice = completion(tokens=400, n=2, temperature=1)
        raising = asyncio.gather(
            read_to_end(server, twice),
            read_chat(server),
            read_response(server),
            return_exceptions=True,
        )
        message = asyncio.create_task(read_message(client))
        whole = [
            asyncio.create_task(client.post(path, json=body, timeout=PATIENCE_SECONDS))
            for path, body in WHOLE
        ]
        # As many as run at once have begun, the others wait.
        least = min(count, SLOTS // 2)
        await until(lambda: sum(bool(s.texts) for s in streams) >= least, "streams to begin")
        struck = time.monotonic()
        await asyncio.to_thread(end)
        await asyncio.gather(*running)
        assert [type(raised) for raised in await raising] == [openai.APIError] * 3
        assert "event: error" in (await message).splitlines()[-4:]
        for answer in await asyncio.gather(*whole):
            assert answer.status_code == 500
            assert answer.json()["error"]["message"]
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
    assert not timely or told - struck <= TELL_SECONDS
    assert gone - struck <= EXIT_SECONDS
    return (
        f"all streams after {seconds(struck, told)}; exit code {code} after "
        f"{seconds(struck, exited)}, no process left after {seconds(struck, gone)}"
    )


async def read_chat(server: OwnServer) -> None:
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


async def read_response(server: OwnServer) -> None:
    """Stream a long answer in the dialect of OpenAI's responses."""
    async with openai_of(server) as client:
        stream = await client.responses.create(
            model=MODEL,
            input="Tell me a long story.",
            max_output_tokens=400,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        async for _ in stream:
            pass


async def read_message(client: httpx.AsyncClient) -> str:
    """Return a stream in Anthropic's dialect, whose clients raise on an event called error."""
    asked = [{"role": "user", "content": "Tell me a long story."}]
    body = {"model": MODEL, "messages": asked, "max_tokens": 400, "stream": True}
    return (await client.post("/v1/messages", json=body)).text


@pytest.mark.usefixtures("only_full")
async def test_the_next_server_has_the_vectors(
    server: OwnServer, vector: bytes, report: Report
) -> None:
    with report.row("a new server on the old store", "its vectors as they were") as row:
        async with client_of(server) as client:
            names = [entry["name"] for entry in (await client.get("/v1/vectors")).json()["data"]]
            assert "kept" in names
            content = (await client.get("/v1/vectors/kept/content")).content
            for name, layer in safetensors.numpy.load(vector).items():
                assert np.array_equal(safetensors.numpy.load(content)[name], layer)
            await ask(client, logit_control=STEERED)
        row.observed = "the same values, and steering with them"


@pytest.mark.usefixtures("only_full")
async def test_a_killed_api_process_leaves_no_orphans(server: OwnServer, report: Report) -> None:
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


@pytest.mark.usefixtures("only_full")
async def test_a_kill_among_uploads_leaves_a_whole_vector(
    server: OwnServer, supervisor: Supervisor, report: Report
) -> None:
    expected = "the one or the other of two that were uploaded in turns, whole"
    with report.row("kill -9 of the API process among uploads", expected) as row:
        uploads = [whole(value) for value in (1, 2)]
        stored = 0

        async def upload(client: httpx.AsyncClient) -> None:
            nonlocal stored
            for content in cycle(uploads):
                (await client.put("/v1/vectors/torn", content=content)).raise_for_status()
                stored += 1

        async with client_of(server) as client:
            uploading = [asyncio.create_task(upload(client)) for _ in range(4)]
            await until(lambda: stored >= 20, "some uploads to be stored")
            server.process.kill()
            ends = await asyncio.gather(*uploading, return_exceptions=True)
            assert all(isinstance(end, httpx.TransportError) for end in ends)
        server.process.wait(PATIENCE_SECONDS)
        async with client_of(supervisor.server()) as client:
            content = (await client.get("/v1/vectors/torn/content")).content
            layers = safetensors.numpy.load(content)
            values = np.unique(np.stack(list(layers.values())))
            assert len(layers) == LAYERS
            assert values.tolist() in ([1], [2])
            assert (await client.delete("/v1/vectors/torn")).status_code == 204
        row.observed = f"one of them, whole, after {stored} that were stored"


def whole(value: float) -> bytes:
    """Return a vector that is the same number in every layer."""
    each = np.full(576, value, np.float32)
    return safetensors.numpy.save({f"layer.{at}": each for at in range(LAYERS)})


async def test_a_stop_finishes_what_was_accepted(server: OwnServer, report: Report) -> None:
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

            async def draining() -> bool:
                return (await client.get("/ready")).status_code == 503

            await until(accepted, "all to be accepted")
            server.process.terminate()
            struck = time.monotonic()
            await until(draining, "newcomers to be refused")
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
