"""A storm of valid requests of every kind, on both runners: all are answered, nothing is left."""

from __future__ import annotations

import asyncio

import pytest

from loadtests.measure.client import connected
from loadtests.storm.run import Options, Place, storm
from tests.faults.report import Report
from tests.faults.supervisor import Supervisor
from tests.integration.client import Client

EXPECTED = "each answered whole or 503 with Retry-After; the engine lives, nothing is left of them"
SECONDS_FULL = 600


async def blow(place: Place, options: Options, report: Report, runner: str) -> float:
    """Run a storm and check it; return how many requests were preempted."""
    done = f"`python -m loadtests.storm`: valid requests of every kind on {runner}"
    with report.row(done, EXPECTED) as row:
        async with connected() as client:
            result = await storm(client, place, options)
        assert result.passed, result.report()
        idle = [name for name, value in result.most.items() if not value]
        assert not idle, f"{idle} never held anything: they could show no leak"
        row.observed = result.summary()
        return result.preemptions


@pytest.mark.xdist_group("faults")
async def test_v1_survives(supervisor: Supervisor, report: Report, full: bool) -> None:
    async def place() -> str:
        return (await asyncio.to_thread(supervisor.server)).url

    options = Options(SECONDS_FULL if full else 60, shrink_seconds=600 if full else 120)
    preempted = await blow(place, options, report, "V1")
    assert preempted > 0, "nothing was preempted: there was room for all"


@pytest.mark.alone
@pytest.mark.xdist_group("faults")
async def test_v2_survives(v2: Client, report: Report, full: bool) -> None:
    async def place() -> str:
        return v2.server.url

    few = Options(SECONDS_FULL if full else 12, concurrency=8, most_tokens=4, patience=20)
    await blow(place, few, report, "V2, whose kernels are interpreted")
