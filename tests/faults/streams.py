"""Streams that are watched to their end, whatever that is."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import openai
import orjson

from loadtests.storm.leftovers import OF_REQUESTS
from tests.integration.servers import MODEL, Server
from tests.waiting import PATIENCE_SECONDS, until

STEERED = {
    "bias": [{"text": " river", "add": 4.0}, {"token_id": 28, "add": 1.0}],
    "steer": [
        {"vector": "kept", "strength": 0.4},
        {"vector": "kept", "strength": 2.0, "at": "residual"},
    ],
}
"""Control along the vector that each server's store has."""


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

    async def is_settled() -> bool:
        await ask(client, tokens=1)
        return not any([await metric(client, name) for name in OF_REQUESTS])

    await until(is_settled, "nothing to be left")


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


def seconds(since: float, end: float | None = None) -> str:
    """Return the time from one reading of the clock to another, or to now, in words."""
    return f"{(time.monotonic() if end is None else end) - since:.1f} s"
