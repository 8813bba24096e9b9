"""What the server keeps in memory: under wide streams, and after many short requests."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from loadtests.cases.chats import TOPICS, chat, with_distribution, with_logprobs
from loadtests.measure.client import Client, Request
from loadtests.measure.processes import resident_bytes
from loadtests.measure.servers import Server

STREAMS = 20
STREAM_TOKENS = 200
SHORT_REQUESTS = 2000
SHOWN_EVERY = 250
WARM_SHAPES = 200
"""Prompts of as many lengths are sent first: vLLM's CPU kernels keep what they prepared for the
last 128 numbers of tokens, in each layer, and grow until they have seen so many."""
REPEATED_AFTER = 200
"""Fewer than are shown at once: what the server may remember of a text, it does from then on."""
_SHORT_TOKENS = 4
_SHORT_CONCURRENCY = 16
_LEAVE_EVERY = 9
"""Shares no factor with the number of kinds, so clients leave requests of every kind."""
_POLL_SECONDS = 0.2
_PROMISED = re.compile(r"^sensefield_distribution_promised_bytes(?:{.*})? (\S+)$", re.MULTILINE)
_RUNNING = re.compile(r"^vllm:num_requests_(?:running|waiting)(?:{.*})? (\S+)$", re.MULTILINE)

Sizes = dict[str, int]


@dataclass
class Watch:
    """The largest of everything that was seen."""

    resident: Sizes = field(default_factory=dict)
    promised_bytes: float = 0.0

    def see(self, resident: Sizes, promised_bytes: float) -> None:
        """Keep the larger values; memory is compared by its total."""
        if sum(resident.values()) > sum(self.resident.values()):
            self.resident = resident
        self.promised_bytes = max(self.promised_bytes, promised_bytes)


async def measure_streams(client: Client, server: Server) -> dict[str, Any]:
    """Run streams of whole rows; return memory before, at its peak, and after."""
    requests = with_distribution(STREAM_TOKENS, *["all"] * STREAMS, dtype="float32")
    await client.run(server.url, [request.with_tokens(2) for request in requests])
    before = await idle_memory(client, server)
    async with watching(client, server) as watch:
        run = await client.run(server.url, requests)
    after = await idle_memory(client, server)
    return {
        "before": before,
        "peak": watch.resident,
        "after": after,
        "promised_bytes": watch.promised_bytes,
        "received_bytes": run.received_bytes,
        "tokens_per_second": run.rate,
    }


async def measure_short_requests(
    client: Client, server: Server, make: Callable[[int], Request]
) -> list[dict[str, Any]]:
    """Run many short requests; return memory now and then."""
    for length in range(WARM_SHAPES):
        await client.run(server.url, [chat(f"{length}{' word' * length}", 2)])
    shown = [{"requests": 0, "resident": await idle_memory(client, server)}]
    for start in range(0, SHORT_REQUESTS, SHOWN_EVERY):
        numbers = iter(range(start, start + SHOWN_EVERY))
        await asyncio.gather(
            *(_send(client, server, make, numbers) for _ in range(_SHORT_CONCURRENCY))
        )
        resident = await idle_memory(client, server)
        shown.append({"requests": start + SHOWN_EVERY, "resident": resident})
        total = sum(resident.values()) / 2**20
        print(f"{server.name}, {start + SHOWN_EVERY} requests: {total:.0f} MiB", flush=True)
    return shown


async def _send(
    client: Client, server: Server, make: Callable[[int], Request], numbers: Iterator[int]
) -> None:
    for number in numbers:
        request = make(number)
        if number % _LEAVE_EVERY == 0:
            await leave(client, server, request)
        else:
            await client.run(server.url, [request])


async def leave(client: Client, server: Server, request: Request) -> None:
    """Send a request as a client does that leaves in the middle."""
    body = json.dumps(request.payload).encode()
    async with client.post(server.url, request, body) as answer:
        await answer.content.readany()


def short_chat(number: int) -> Request:
    """Return a chat that asks for nothing special; its text comes again after 200 requests."""
    return chat(_topic(number), _SHORT_TOKENS)


def short_request(number: int) -> Request:
    """Return one of the kinds in turn, with a text that comes again after 200 requests."""
    topic = _topic(number)
    pattern = {"text": f" {topic}"}
    kinds: tuple[Callable[[], Request], ...] = (
        lambda: chat(topic, _SHORT_TOKENS),
        lambda: with_logprobs(_SHORT_TOKENS, 5)[0],
        lambda: with_distribution(_SHORT_TOKENS, 20, stages=["base", "controlled"])[0],
        lambda: with_distribution(_SHORT_TOKENS, 100, encoding="json")[0],
        lambda: with_distribution(_SHORT_TOKENS, "all", dtype="float16")[0],
        lambda: with_distribution(_SHORT_TOKENS, 1000, top_p=0.9)[0],
        lambda: chat(topic, _SHORT_TOKENS, logit_control={"bias": [{**pattern, "add": 2.0}]}),
        lambda: chat(topic, _SHORT_TOKENS, logit_control={"suppress": [pattern]}),
    )
    return kinds[number % REPEATED_AFTER % len(kinds)]()


def _topic(number: int) -> str:
    number %= REPEATED_AFTER
    return f"{TOPICS[number % len(TOPICS)]} {number}"


@asynccontextmanager
async def watching(client: Client, server: Server) -> AsyncIterator[Watch]:
    """Look at a server's memory and promises for as long as the context lasts."""
    watch = Watch()

    async def look() -> None:
        while True:
            promised = await _metric(client, server, _PROMISED)
            watch.see(resident_bytes(server.group), promised)
            await asyncio.sleep(_POLL_SECONDS)

    looking = asyncio.create_task(look())
    try:
        yield watch
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


async def idle_memory(client: Client, server: Server) -> Sizes:
    """Return a server's memory once nothing runs and nothing is promised."""
    while await _metric(client, server, _PROMISED) or await _metric(client, server, _RUNNING):
        await asyncio.sleep(_POLL_SECONDS)
    return resident_bytes(server.group)


async def _metric(client: Client, server: Server, series: re.Pattern[str]) -> float:
    async with client.session.get(f"{server.url}/metrics") as answer:
        answer.raise_for_status()
        return sum(map(float, series.findall(await answer.text())))
