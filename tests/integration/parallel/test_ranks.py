"""One model over two ranks answers as over one, and tells of each request in a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import safetensors.numpy
from prometheus_client.parser import text_string_to_metric_families

from loadtests.measure.processes import living
from tests.integration.client import Client, array
from tests.integration.offline import vector
from tests.integration.parallel.conftest import Several

pytestmark = pytest.mark.xdist_group("parallel")

PROMPT = "The history of the city begins with a small group of people who"
BIAS = [{"text": " river", "add": 12.0}, {"token_id": 49151, "add": -3.0}]
SUPPRESS = [{"text": "the", "ignore_case": True}]
STEER = [{"vector": "rank-shore", "strength": 0.3}]
RESIDUAL = [{"vector": "push", "strength": 40.0, "at": "residual"}]
REQUESTS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "bias": {"bias": BIAS},
    "suppress": {"suppress": SUPPRESS},
    "steer": {"steer": STEER},
    "residual": {"steer": RESIDUAL},
    "all": {"bias": BIAS, "suppress": SUPPRESS, "steer": [*STEER, *RESIDUAL]},
}
STAGES = ("base", "controlled")
CONTRAST = {
    "positive": ["I love this", "What a wonderful day"],
    "negative": ["I hate this", "What a terrible day"],
    "layers": [3, 20],
}


@pytest.fixture(scope="module")
def alone(v1: Client) -> Client:
    """A server of one rank, with the vectors that are asked for."""
    make_vectors(v1)
    return v1


@pytest.fixture(scope="module", params=["two_ranks", "two_engines"])
def ranks(request: pytest.FixtureRequest) -> Several:
    found: Several = request.getfixturevalue(request.param)
    make_vectors(found.client)
    return found


def make_vectors(client: Client) -> None:
    """Make one of the unembedding, one of the residual stream and one of contrasting prompts."""
    push = {f"layer.{n}": vector("push", [n])[0] for n in (10, 20)}
    client.http.put("/v1/vectors/push", content=safetensors.numpy.save(push)).raise_for_status()
    for name, source in (("rank-shore", {"text": " shore"}), ("rank-mood", {"contrast": CONTRAST})):
        body = {"name": name, "from": source, "replace": True}
        client.http.post("/v1/vectors", json=body).raise_for_status()


def answers(client: Client) -> list[dict[str, Any]]:
    """Return the choices of all requests, each sent twice, beside one another."""
    seen = {"top_k": "all", "stages": STAGES}
    asked = {"prompt": PROMPT, "max_tokens": 10, "distribution": seen}
    return client.together([{**asked, "logit_control": each} for each in REQUESTS.values()] * 2)


def test_text_and_rows_are_those_of_one_rank(ranks: Several, alone: Client) -> None:
    wanted = answers(alone)
    assert len({choice["text"] for choice in wanted}) == len(REQUESTS)
    for found, expected in zip(answers(ranks.client), wanted, strict=True):
        assert found["token_ids"] == expected["token_ids"]
        for stage in STAGES:
            rows, same = (
                array(each["distribution"][stage]["logprobs"]) for each in (found, expected)
            )
            np.testing.assert_allclose(rows, same, atol=2e-3)
        kl, same = (array(each["distribution"]["kl"]) for each in (found, expected))
        np.testing.assert_allclose(kl, same, atol=2e-3)


def test_both_ranks_worked(two_ranks: Several) -> None:
    titles = {title(process) for process in living(two_ranks.server.pid)}
    assert {"VLLM::Worker_TP0", "VLLM::Worker_TP1"} <= titles


def test_both_engines_worked(two_engines: Several) -> None:
    answers(two_engines.client)
    metrics = two_engines.client.http.get("/metrics").text
    finished = {
        sample.labels["engine"]
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == "vllm:request_success_total" and sample.value > 0
    }
    assert finished == {"0", "1"}


def title(process: int) -> str:
    return Path(f"/proc/{process}/cmdline").read_bytes().partition(b"\0")[0].decode().strip()


def test_vectors_are_made_and_read_as_by_one_rank(ranks: Several, alone: Client) -> None:
    for name in ("rank-shore", "rank-mood"):
        found, expected = (
            safetensors.numpy.load(client.http.get(f"/v1/vectors/{name}/content").content)
            for client in (ranks.client, alone)
        )
        assert found.keys() == expected.keys()
        for layer, direction in expected.items():
            np.testing.assert_allclose(found[layer], direction, atol=1e-3)
    for path in ("/v1/vectors/rank-mood/nearest?k=5", "/v1/tokens/nearest?text=%20shore&k=5"):
        ids = [ids_of(client.http.get(path).json()) for client in (ranks.client, alone)]
        assert ids[0] == ids[1]


def ids_of(told: Any) -> list[int]:
    """Return all token ids of an answer, in order."""
    if isinstance(told, dict):
        own = [told["token_id"]] if "token_id" in told else []
        return own + [each for value in told.values() for each in ids_of(value)]
    return [each for value in told for each in ids_of(value)] if isinstance(told, list) else []


def test_the_lens_reads_the_layers_of_one_rank(ranks: Several, alone: Client) -> None:
    body = {"prompt": PROMPT, "layers": [4, 29], "k": 3, "logit_control": {"steer": RESIDUAL}}
    for _ in range(2):
        lenses = [
            httpx.post(f"{client.server.url}/v1/lens", json=body, timeout=60).json()
            for client in (ranks.client, alone)
        ]
        found, expected = (np.array(lens["top"]["logprobs"]) for lens in lenses)
        np.testing.assert_allclose(found, expected, atol=5e-3)
