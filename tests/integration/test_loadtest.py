"""Locust against a real server: every kind of request is served, measured and judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.load import run
from loadtests.load.kinds import KINDS
from loadtests.load.objectives import Sample
from tests.integration.client import Client
from tests.integration.servers import REPOSITORY

LOCUST = (
    *(sys.executable, "-m", "locust", "-f", "loadtests/load/locustfile.py", "--headless"),
    *("--only-summary", "--shape", "soak", "--tokens", "4"),
)


def locust(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [*LOCUST, *flags]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_every_kind_is_measured_and_judged(v1: Client, tmp_path: Path) -> None:
    file = tmp_path / "samples.json"
    users = ("--peak", str(len(KINDS)), "--seconds", "5")
    flags = ("--host", v1.server.url, *users, "--samples", str(file))
    done = locust(*flags, "--ttft-ms", "60000", "--itl-ms", "60000")
    assert done.returncode == 0, done.stderr
    assert "objectives met" in done.stdout
    samples = [Sample(**sample) for sample in json.loads(file.read_text())]
    assert [sample.error for sample in samples if sample.error] == []
    assert {sample.kind for sample in samples} == {kind.name for kind in KINDS}
    for sample in samples:
        assert sample.tokens == 4
        assert 0 < sample.ttft < sample.seconds
        assert sample.ttft + sum(sample.itls) <= sample.seconds
    for measure in ("TTFT", "ITL", "tokens/s"):
        assert measure in done.stdout + done.stderr


def test_a_missed_objective_is_a_failure_and_the_report_says_so(
    v1: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "SCRATCH", tmp_path)
    out = tmp_path / "out"
    load = ["--url", v1.server.url, "--groups", "distribution", "--shape", "soak", "--peak", "4"]
    status = run.main(
        [*load, "--seconds", "3", "--tokens", "4", "--ttft-ms", "0", "--out", str(out)]
    )
    assert status == 1
    assert {file.name for file in out.iterdir()} == {
        *("loadtest.json", "loadtest.md", "loadtest.png"),
    }
    assert "p99 TTFT" in (out / "loadtest.md").read_text()
    (step,) = json.loads((out / "loadtest.json").read_text())["groups"]["distribution"]
    assert step["users"] == 4
    assert step["tokens_per_second"] > 0
    assert (tmp_path / "loadtest" / "distribution.html").stat().st_size > 1000
