"""Measuring a case: feature and baseline in turns, a ratio for each neighbouring two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from loadtests.cases.throughput import Case, Load, Pair
from loadtests.measure.client import Client, Run
from loadtests.measure.processes import processor_seconds, resident_bytes
from loadtests.measure.results import Result
from loadtests.measure.servers import Server
from loadtests.measure.stock import attempt

_WARM_UP_SHARE = 8
"""A warm-up generates an eighth of the tokens, and does nothing for requests of a few."""


@dataclass(frozen=True)
class Round:
    """Two neighbouring runs."""

    feature: Run
    baseline: Run

    @property
    def ratio(self) -> float:
        """Throughput with the feature over throughput without it."""
        return self.feature.rate / self.baseline.rate

    def describe(self) -> dict[str, Any]:
        """Return all that was measured, for JSON."""
        return {
            "ratio": self.ratio,
            "feature": self.feature.describe(),
            "baseline": self.baseline.describe(),
        }

    def __str__(self) -> str:
        return f"{self.feature.rate:.1f} / {self.baseline.rate:.1f} = {self.ratio:.3f}"


async def measure(client: Client, servers: Mapping[str, Server], case: Case, rounds: int) -> Result:
    """Warm up, then run all rounds of a case."""
    ours: list[Round] = []
    stock: list[Round] = []
    await _warm_up(client, servers, case.ours)
    compare = case.stock
    if compare and await attempt(_warm_up(client, servers, compare)) is None:
        compare = None
    for number in range(rounds):
        ours.append(await _round(client, servers, case.ours))
        line = f"{case.name}, round {number + 1}: {ours[-1]}"
        if compare and number < (compare.max_rounds or rounds):
            if done := await attempt(_round(client, servers, compare)):
                stock.append(done)
                line += f", stock {done}"
            else:
                compare = None
        print(line, flush=True)
    return Result(
        case.name,
        case.title,
        case.goal,
        ratios(ours),
        ratios(stock),
        stock_failed=case.stock is not None and compare is None,
        raw={
            "sensefield": [done.describe() for done in ours],
            "stock": [done.describe() for done in stock],
        },
    )


def ratios(rounds: list[Round]) -> list[float]:
    """Return the ratio of each round."""
    return [done.ratio for done in rounds]


async def _round(client: Client, servers: Mapping[str, Server], pair: Pair) -> Round:
    return Round(
        await _run(client, servers, pair.feature), await _run(client, servers, pair.baseline)
    )


async def _run(client: Client, servers: Mapping[str, Server], load: Load) -> Run:
    """Run one load once all servers are idle: the two share the machine."""
    for server in servers.values():
        await server.settled()
    server = servers[load.server]
    before = processor_seconds(server.group)
    run = await client.run(server.url, load.requests)
    after = processor_seconds(server.group)
    return replace(
        run,
        resident_bytes=resident_bytes(server.group),
        processor_seconds={name: used - before.get(name, 0.0) for name, used in after.items()},
    )


async def _warm_up(client: Client, servers: Mapping[str, Server], pair: Pair) -> Round:
    """Run a shorter round."""
    return await _round(client, servers, Pair(_shorter(pair.feature), _shorter(pair.baseline)))


def _shorter(load: Load) -> Load:
    requests = [r.with_tokens(r.tokens // _WARM_UP_SHARE) for r in load.requests]
    return Load(load.server, [r for r in requests if r.tokens])
