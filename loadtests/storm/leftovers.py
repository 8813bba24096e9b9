"""Resources that a server still holds for requests that have ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client.parser import text_string_to_metric_families

from loadtests.measure.client import Client
from loadtests.storm.shot import COMPLETION
from loadtests.storm.target import Target

OF_REQUESTS = (
    *("vllm:kv_cache_usage_perc", "vllm:num_requests_running", "vllm:num_requests_waiting"),
    *("sensefield_in_flight_requests", "sensefield_queued_requests"),
    *("sensefield_distribution_promised_bytes", "sensefield_vector_leases"),
)
"""Metrics that are 0 without requests."""
OF_WORKERS = "sensefield_held"
"""Another one, which may be some seconds old."""
OF_VECTORS = "sensefield_vectors"
"""As many as before, once the storm's own are deleted."""
PATIENCE_SECONDS = 60
_BETWEEN_SECONDS, _LOOK_SECONDS = 0.1, 1.0


async def metrics(client: Client, url: str) -> dict[str, float]:
    """Return the sum of each metric's series."""
    async with client.session.get(f"{url}/metrics") as answer:
        answer.raise_for_status()
        text = await answer.text()
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


@asynccontextmanager
async def watching(client: Client, url: str) -> AsyncIterator[dict[str, float]]:
    """Keep the most that each metric showed for as long as the context lasts."""
    most = dict.fromkeys((*OF_REQUESTS, OF_WORKERS), 0.0)

    async def look() -> None:
        while True:
            seen = await metrics(client, url)
            most.update({name: max(value, seen[name]) for name, value in most.items()})
            await asyncio.sleep(_LOOK_SECONDS)

    looking = asyncio.create_task(look())
    try:
        yield most
    finally:
        looking.cancel()
        # A server that has died answers no more.
        await asyncio.gather(looking, return_exceptions=True)


async def leftovers(client: Client, target: Target, vectors: float) -> dict[str, float]:
    """Return what does not come to nothing within a minute.

    Args:
        client: asks the server.
        target: the server.
        vectors: how many vectors it is to have.

    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        await _make_a_token(client, target)
        seen = await metrics(client, target.url)
        left = {name: seen[name] for name in (*OF_REQUESTS, OF_WORKERS) if seen[name]}
        if seen[OF_VECTORS] != vectors:
            left[OF_VECTORS] = seen[OF_VECTORS] - vectors
        if not left or time.monotonic() > deadline:
            return left
        await asyncio.sleep(_BETWEEN_SECONDS)


async def _make_a_token(client: Client, target: Target) -> None:
    """Have the engine take a step, after which it updates its metrics."""
    body = {"model": target.models[0], "prompt": "a", "max_tokens": 1}
    async with client.session.post(target.url + COMPLETION, json=body) as answer:
        answer.raise_for_status()
