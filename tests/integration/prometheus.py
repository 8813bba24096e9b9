"""A real Prometheus for the tests: Debian's, with our rules, scraping every second."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from loadtests.measure.servers import free_port
from tests.integration.servers import REPOSITORY
from tests.waiting import wait_for

RULES = REPOSITORY / "deploy" / "prometheus"


class Prometheus:
    """Answers PromQL."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the samples that an instant query finds."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}).json()
        assert answer["status"] == "success", f"{expression}: {answer['error']}"
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def wait_until_ready(self) -> None:
        """Return when it answers queries."""

        def is_ready() -> bool:
            try:
                return httpx.get(f"{self.url}/-/ready").is_success
            except httpx.TransportError:
                return False

        wait_for(is_ready, "Prometheus")

    def wait_for(self, expression: str) -> list[dict[str, Any]]:
        """Return what the query finds as soon as it finds anything."""
        found: list[dict[str, Any]] = []

        def finds() -> bool:
            found[:] = self.query(expression)
            return bool(found)

        wait_for(finds, expression)
        return found


@contextmanager
def scraping(targets: Sequence[str], folder: Path) -> Iterator[Prometheus]:
    """Scrape ``host:port`` targets under our rules, whose alerts need not last, until the end."""
    program = shutil.which("prometheus")
    if program is None:
        assert not os.environ.get("CI"), "CI installs Prometheus"
        pytest.skip("Prometheus is not installed (Debian: apt-get install prometheus)")
    _render(targets, folder)
    port = free_port()
    command = [
        *(program, "--config.file", str(folder / "prometheus.yml"), "--web.listen-address"),
        *(f"127.0.0.1:{port}", "--storage.tsdb.path", str(folder / "data")),
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    prometheus = Prometheus(f"http://127.0.0.1:{port}")
    try:
        prometheus.wait_until_ready()
        yield prometheus
    finally:
        process.terminate()
        process.wait()


def _render(targets: Sequence[str], folder: Path) -> None:
    config = yaml.safe_load((RULES / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (job,) = config["scrape_configs"]
    job["static_configs"] = [{"targets": list(targets)}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    for name in config["rule_files"]:
        rules = yaml.safe_load((RULES / name).read_text())
        for rule in (rule for group in rules["groups"] for rule in group["rules"]):
            rule.pop("for", None)
        (folder / name).write_text(yaml.safe_dump(rules))
