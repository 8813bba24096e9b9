"""The dashboard and the alerts on a real scrape of a real server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from loadtests.measure.servers import free_port
from tests.integration.client import Client
from tests.integration.prometheus import RULES, Prometheus, scraping
from tests.integration.servers import MODEL, REPOSITORY

pytestmark = pytest.mark.alone

DASHBOARD = json.loads((REPOSITORY / "deploy" / "grafana" / "dashboard.json").read_text())
QUERIES = {
    f"{panel['title']}: {target['legendFormat']}": target["expr"]
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
}
VARIABLES = {"$__rate_interval": "1m", "$instance": ".*"}
_SERIES = re.compile(r"\b(?:vllm:|sensefield_|instance:)\w+(?::\w+)?")


@pytest.fixture(scope="module")
def prometheus(v1: Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus that scrapes the server, and one that is not there."""
    targets = (v1.server.url.removeprefix("http://"), f"127.0.0.1:{free_port()}")
    use_everything(v1)
    with scraping(targets, tmp_path_factory.mktemp("prometheus")) as running:
        running.wait_for("sensefield_kl_nats_count")
        use_everything(v1)
        yield running


def use_everything(client: Client) -> None:
    """Have every series of the dashboard move: control, rows, refusals."""
    for encoding in ("base64", "json"):
        client.choice(
            "The",
            logit_control={"bias": [{"text": " sea", "add": 3}], "suppress": [{"token_id": 28}]},
            distribution={"top_k": 5, "stages": ["base", "controlled"], "encoding": encoding},
        )
    client.refused("/v1/completions", {"model": MODEL, "prompt": "x", "n": "many"})


@pytest.mark.parametrize("name", QUERIES)
def test_every_query_of_the_dashboard_finds_something(name: str, prometheus: Prometheus) -> None:
    expression = QUERIES[name]
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression
    assert prometheus.wait_for(expression)


def test_every_series_that_rules_and_dashboard_name_exists(prometheus: Prometheus) -> None:
    rules = [(RULES / name).read_text() for name in ("recording.yml", "alerts.yml")]
    named = {name for text in (*QUERIES.values(), *rules) for name in _SERIES.findall(text)}
    assert len(named) >= 25
    for name in sorted(named):
        assert prometheus.wait_for(f'{{__name__="{name}"}}'), name


def test_a_server_that_does_not_answer_is_told_of(prometheus: Prometheus) -> None:
    (alert,) = prometheus.wait_for(firing("SensefieldDown"))
    assert alert["metric"]["severity"] == "page"


def test_a_server_that_turns_requests_away_is_told_of(v1: Client, prometheus: Prometheus) -> None:
    """Streams that are promised most of the byte budget leave no room; one refusal is seen."""
    rows = {"top_k": "all", "stages": ["base", "controlled"]}
    body = {"model": MODEL, "prompt": "The", "max_tokens": 600, "n": 4, "ignore_eos": True}
    greedy: dict[str, Any] = {**body, "distribution": rows, "stream": True}
    assert not prometheus.query(firing("SensefieldSaturated"))
    with ExitStack() as streams:
        for _ in range(4):
            opened = streams.enter_context(v1.http.stream("POST", "/v1/completions", json=greedy))
            assert opened.is_success
        status, error = v1.refused("/v1/completions", greedy)
        assert (status, error["code"]) == (503, "distribution_budget_exhausted")
    (alert,) = prometheus.wait_for(firing("SensefieldSaturated"))
    assert alert["metric"]["instance"] == v1.server.url.removeprefix("http://")


def firing(alert: str) -> str:
    return f'ALERTS{{alertname="{alert}", alertstate="firing"}}'
