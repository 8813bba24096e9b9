"""Streams that are watched to their end, whatever that is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from tests.integration.servers import MODEL, Server

PATIENCE_SECONDS = 120
"""Longest wait for anything: on a busy machine seconds say nothing."""
OF_REQUESTS = (
    *("vllm:kv_cache_usage_perc", "vllm:num_requests_running", "vllm:num_requests_waiting"),
    *("sensefield_in_flight_requests", "sensefield_queued_requests"),
    "sensefield_distribution_promised_bytes",
)
"""Metrics that are 0 without requests."""


@dataclass
class Watched:
    """What came of one stream so far."""

    texts: list[str] = field(default_factory=list)
    finish_reasons: list[str] = field(default_factory=list)
    error: dict[str, Any] | None = None
    done: bool = False
    """Whether it ended as a success does."""
    ended_at: float = 0.0
    """In :func:`time.monotonic`."""


@asynccontextmanager
async def client_of(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client with as many connections as are asked for."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(
        base_url=server.url, timeout=PATIENCE_SECONDS, limits=limits
    ) as client:
        yield client


def completion(number: int = 0, tokens: int = 8, **fields: Any) -> dict[str, Any]:
    """Return the body of a greedy completion of so many tokens."""
    return {
        "model": MODEL,
        "prompt": f"{number}. The history of the city begins with a small group of people who",
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        **fields,
    }


async def ask(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    """Return the answer to a completion."""
    answer = await client.post("/v1/completions", json=completion(**fields))
    assert answer.is_success, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def watch(client: httpx.AsyncClient, body: dict[str, Any], watched: Watched) -> None:
    """Read a stream of completions to its end."""
    request = client.stream("POST", "/v1/completions", json={**body, "stream": True})
    async with request as answer:
        assert answer.is_success
        async for line in answer.aiter_lines():
            if line == "data: [DONE]":
                watched.done = True
            elif line.startswith("data: "):
                _take(orjson.loads(line.removeprefix("data: ")), watched)
    watched.ended_at = time.monotonic()


def _take(event: dict[str, Any], watched: Watched) -> None:
    if "error" in event:
        watched.error = event["error"]
        return
    for choice in event["choices"]:
        watched.texts.append(choice["text"])
        if choice["finish_reason"]:
            watched.finish_reasons.append(choice["finish_reason"])


async def until(condition: Callable[[], bool], what: str) -> None:
    """Return when a condition holds; TimeoutError if it never does."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        await asyncio.sleep(0.02)  # between two looks at a condition


async def metric(client: httpx.AsyncClient, name: str) -> float:
    """Return the sum of a metric's series."""
    lines = (await client.get("/metrics")).text.splitlines()
    found = [line for line in lines if line.startswith((f"{name}{{", f"{name} "))]
    assert found, f"there is no metric {name}"
    return sum(float(line.rpartition(" ")[2]) for line in found)


async def settle(client: httpx.AsyncClient) -> None:
    """Wait until nothing is left of requests that ended in whatever way.

    The engine tells its metrics after a step, so something has to be asked.
    """

    async def left() -> bool:
        await ask(client, tokens=1)
        return any([await metric(client, name) for name in OF_REQUESTS])

    async with asyncio.timeout(PATIENCE_SECONDS):
        while await left():
            pass
