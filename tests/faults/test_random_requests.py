"""A storm of valid requests of every kind, on both runners: all are answered, nothing is left."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from loadtests.measure.client import connected
from loadtests.storm.leftovers import OF_WORKERS
from loadtests.storm.run import Options, Place, Result, storm
from tests.faults.report import Report
from tests.faults.supervisor import Supervisor
from tests.integration.client import Client
from tests.integration.servers import V2_ENVIRONMENT

pytestmark = pytest.mark.xdist_group("faults")

EXPECTED = "each answered whole or 503 with Retry-After; the engine lives, nothing is left of them"
LONG_SECONDS = 600
INTERPRETED = {"concurrency": 8, "most_tokens": 4}
"""Some tokens a second, of all requests together."""
CROWDED_V2 = (
    *("--max-model-len", "256", "--max-num-seqs", "8", "--block-size", "32"),
    *("--num-gpu-blocks-override", "12", "--max-num-batched-tokens", "64"),
)


def place_of(supervisor: Supervisor) -> Place:
    async def place() -> str:
        return (await asyncio.to_thread(supervisor.server)).url

    return place


async def blow(place: Place, options: Options, report: Report, server: str) -> Result:
    """Run a storm, check it and return its result."""
    done = f"`python -m loadtests.storm`: valid requests of every kind on {server}"
    with report.row(done, EXPECTED) as row:
        async with connected() as client:
            result = await storm(client, place, options)
        assert result.passed, result.report()
        assert result.most[OF_WORKERS], "its workers held nothing: that could show no leak"
        row.observed = result.summary()
        return result


async def test_v1_survives(supervisor: Supervisor, report: Report, full: bool) -> None:
    options = Options(LONG_SECONDS if full else 60, shrink_seconds=600 if full else 120)
    result = await blow(place_of(supervisor), options, report, "V1 with little room")
    assert result.preemptions > 0, "nothing was preempted: there was room for all"
    idle = [name for name, value in result.most.items() if not value]
    assert not idle, f"{idle} never held anything: they could show no leak"


@pytest.mark.alone
async def test_v2_survives(v2: Client, report: Report) -> None:
    async def place() -> str:
        return v2.server.url

    await blow(place, Options(12, patience=20, **INTERPRETED), report, "V2, interpreted")


@pytest.mark.usefixtures("only_full")
async def test_v2_survives_with_little_room(tmp_path: Path, report: Report) -> None:
    options = Options(LONG_SECONDS, patience=20, shrink_seconds=600, **INTERPRETED)
    with Supervisor(tmp_path, CROWDED_V2, V2_ENVIRONMENT) as supervisor:
        await blow(place_of(supervisor), options, report, "V2 with little room, interpreted")
