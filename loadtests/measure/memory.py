"""The server's memory, and short requests of all kinds that may leave something in it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from loadtests.cases.chats import TOPICS, chat, with_distribution, with_logprobs
from loadtests.measure.client import Client, Request
from loadtests.measure.processes import resident_bytes
from loadtests.measure.servers import Server

WARM_SHAPES = 200
"""Prompts of as many lengths are sent first: vLLM's CPU kernels keep what they prepared for the
last 128 numbers of tokens, in each layer, and grow until they have seen so many."""
REPEATED_AFTER = 200
"""Few: what the server may remember of a text, it soon does."""
_SHORT_TOKENS = 4
_POLL_SECONDS = 0.2
_PROMISED = re.compile(r"^sensefield_distribution_promised_bytes(?:{.*})? (\S+)$", re.MULTILINE)
_RUNNING = re.compile(r"^vllm:num_requests_(?:running|waiting)(?:{.*})? (\S+)$", re.MULTILINE)

Sizes = dict[str, int]


@dataclass
class Watch:
    """The largest memory that was seen."""

    resident: Sizes = field(default_factory=dict)

    def see(self, resident: Sizes) -> None:
        """Keep the larger memory, by its total."""
        if sum(resident.values()) > sum(self.resident.values()):
            self.resident = resident


async def leave(client: Client, server: Server, request: Request) -> None:
    """Send a request as a client does that leaves in the middle."""
    body = json.dumps(request.payload).encode()
    async with client.post(server.url, request, body) as answer:
        await answer.content.readany()


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
async def watching(server: Server) -> AsyncIterator[Watch]:
    """Look at a server's memory for as long as the context lasts."""
    watch = Watch()

    async def look() -> None:
        while True:
            watch.see(resident_bytes(server.group))
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
