"""``/metrics`` tells what the server does, beside vLLM's own series."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.client import Client
from tests.integration.servers import MODEL
from tests.waiting import wait_for

pytestmark = pytest.mark.alone


def _samples(client: Client) -> dict[str, float]:
    text = client.http.get("/metrics").text
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_controlled_request_moves_the_series_it_should(v1: Client) -> None:
    before = _samples(v1)
    v1.choice(
        "The",
        max_tokens=5,
        logit_control={"bias": [{"text": " sea", "add": 3}], "suppress": [{"token_id": 28}]},
        distribution={"top_k": 7, "stages": ["base", "controlled"]},
    )
    v1.refused("/v1/completions", {"model": "smollm2-135m-instruct", "prompt": "x", "n": "many"})
    after = _samples(v1)
    moved = {key: after[key] - before.get(key, 0.0) for key in after}
    base = [("encoding", "base64"), ("stage", "base")]
    assert moved[f"sensefield_distribution_rows_total{base}"] == 5
    assert moved[f"sensefield_distribution_bytes_total{base}"] == 5 * 7 * 8
    assert moved[f"sensefield_controlled_requests_total{[('kind', 'text_bias')]}"] == 1
    assert moved[f"sensefield_controlled_requests_total{[('kind', 'token_suppress')]}"] == 1
    assert moved["sensefield_kl_nats_count[]"] == 5
    ended = [("outcome", "ok"), ("route", "completions")]
    assert moved[f"sensefield_requests_total{ended}"] == 1
    refused = [("reason", "invalid_request_error"), ("status", "400")]
    assert moved[f"sensefield_rejected_requests_total{refused}"] == 1
    for gauge in ("in_flight_requests", "queued_requests", "distribution_promised_bytes"):
        assert after[f"sensefield_{gauge}[]"] == 0
    assert any(key.startswith("vllm:") for key in after)


def test_scores_and_lenses_are_counted_once_with_their_controls(v1: Client) -> None:
    before = _samples(v1)
    control = {"logit_control": {"bias": [{"token_id": 28, "add": 1}]}}
    score = {"prompt": "The", "continuations": [" sea", " sky", " sun"]} | control
    for path, body in (("score", score), ("lens", {"prompt": "The", "layers": [0]} | control)):
        assert v1.http.post(f"/v1/{path}", json=body).is_success
        assert v1.refused(f"/v1/{path}", body | {"model": "none"})[0] == 404
    after = _samples(v1)
    for route in ("score", "lens"):
        for outcome in ("ok", "client_error"):
            key = f"sensefield_requests_total{[('outcome', outcome), ('route', route)]}"
            assert after[key] - before.get(key, 0.0) == 1
    key = f"sensefield_controlled_requests_total{[('kind', 'token_bias')]}"
    assert after[key] - before.get(key, 0.0) == 2
    assert after["sensefield_in_flight_requests[]"] == 0


def test_who_ended_a_request_is_told(v1: Client) -> None:
    def ended(outcome: str) -> float:
        key = f"sensefield_requests_total{[('outcome', outcome), ('route', 'completions')]}"
        return _samples(v1).get(key, 0.0)

    before = {outcome: ended(outcome) for outcome in ("cancelled", "client_error", "server_error")}
    body = {"model": "smollm2-135m-instruct", "prompt": "The"}
    rows = {"distribution": {"top_k": "all", "encoding": "json"}, "max_tokens": 900}
    assert v1.refused("/v1/completions", body | rows)[1]["code"] == "distribution_too_large"
    with pytest.raises(httpx.ReadTimeout):
        v1.http.post("/v1/completions", json=body | {"max_tokens": 900}, timeout=0.2)
    wait_for(lambda: ended("cancelled") == before["cancelled"] + 1)
    assert ended("client_error") == before["client_error"] + 1
    assert ended("server_error") == before["server_error"]


LONG = {"model": MODEL, "max_tokens": 900, "ignore_eos": True}
COUNT = "Count from one to five hundred, each number in words."
CHAT = [{"role": "user", "content": COUNT}]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", LONG | {"messages": CHAT}),
        ("/v1/completions", LONG | {"prompt": COUNT}),
        ("/v1/responses", {"model": MODEL, "input": COUNT, "max_output_tokens": 900}),
        ("/v1/messages", {"model": MODEL, "max_tokens": 900, "messages": CHAT}),
        ("/v1/score", {"prompt": "a" * 900, "continuations": [" b c d"] * 256}),
        ("/v1/lens", {"prompt": "a b c d " * 100, "layers": [0], "max_tokens": 64}),
    ],
)
def test_a_client_that_leaves_has_cancelled(v1: Client, path: str, body: dict[str, Any]) -> None:
    request_id = f"left{path.replace('/', '-')}"
    before = _samples(v1)
    with pytest.raises(httpx.ReadTimeout):
        v1.http.post(path, json=body, headers={"x-request-id": request_id}, timeout=0.2)

    def line() -> dict[str, Any] | None:
        """Return what the audit log says of it."""
        log = v1.server.log.read_text().rpartition("\n")[0].splitlines()
        found = [json.loads(each) for each in log if each.startswith("{") and request_id in each]
        return found[0] if found else None

    wait_for(lambda: line() is not None)
    told = line()
    assert told is not None
    assert (told["outcome"], told["status"], told["bytes"]) == ("cancelled", None, 0)
    new = {key: value - before.get(key, 0.0) for key, value in _samples(v1).items()}
    ended = {key for key, value in new.items() if value and "requests_total[('outcome'" in key}
    assert all("'cancelled'" in key for key in ended)
    labels = [("handler", path), ("method", "POST"), ("status", "4xx")]
    assert new[f"http_requests_total{labels}"] == 1


def test_what_an_alert_waits_for_is_there_before_it_happens(v1: Client) -> None:
    series = _samples(v1)
    for status, reasons in (
        (
            "503",
            (
                "overloaded_error",
                "queue_full",
                "bodies_full",
                "distribution_budget_exhausted",
                "patterns_full",
            ),
        ),
        ("507", ("insufficient_storage_error",)),
    ):
        for reason in reasons:
            labels = [("reason", reason), ("status", status)]
            assert f"sensefield_rejected_requests_total{labels}" in series


def test_series_have_base_units_and_few_labels(v1: Client) -> None:
    text = v1.http.get("/metrics").text
    ours = [
        family
        for family in text_string_to_metric_families(text)
        if family.name.startswith("sensefield_")
    ]
    assert len(ours) >= 10
    for family in ours:
        assert family.documentation
        assert not re.search(r"_(ms|milliseconds|kb|mb)$", family.name)
        assert {label for sample in family.samples for label in sample.labels} <= {
            *("route", "outcome", "status", "reason", "kind", "stage", "encoding", "state", "le"),
        }
