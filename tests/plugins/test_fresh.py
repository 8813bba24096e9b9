"""The example plugin: on four tokens by hand, with the harness, and as a package over HTTP."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from logit_processors.testing import CHECKS, Harness
from tests.integration.client import Client, array
from tests.integration.servers import MODEL, REPOSITORY

FIELD = "logit_control.failing"
FILE = REPOSITORY / "docs" / "plugins" / "fresh" / "fresh.py"


@pytest.fixture(scope="module")
def fresh() -> Any:
    """The module of the package, which is not installed here."""
    spec = importlib.util.spec_from_file_location("fresh", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tokens_that_came_last_lose_their_nats_once(fresh: Any) -> None:
    logits = torch.zeros(2, 4)
    tokens = torch.tensor([[2, 1, 2], [3, -1, -1]])
    fresh.apply_fresh(logits, tokens, torch.tensor([2, 3]), torch.tensor([1.5, 4.0]))
    assert logits.tolist() == [[0.0, -1.5, -1.5, 0.0], [0.0, 0.0, 0.0, -4.0]]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("example", [0, 1])
def test_it_passes_the_harness(fresh: Any, check: Callable[[Harness], None], example: int) -> None:
    check(Harness(fresh.Fresh(), example))


@pytest.mark.parametrize("server", ["v1", "v2"])
def test_it_is_served(server: str, request: pytest.FixtureRequest) -> None:
    client: Client = request.getfixturevalue(server)
    schemas = client.http.get("/openapi.json").json()["components"]["schemas"]
    assert "fresh" in schemas["LogitControl"]["properties"]
    assert schemas["FreshEntry"]["properties"]["penalty"]["maximum"] == 100
    ask: dict[str, Any] = {"prompt": "la la la la la la", "max_tokens": 6, "temperature": 0}
    plain = client.choice(**ask)["token_ids"]
    always = {"fresh": {"penalty": 100, "probability": 1.0}}
    varied = client.choice(**ask, logit_control=always)["token_ids"]
    assert len(set(varied)) == len(varied), "a token came again"
    assert len(set(plain)) < len(plain), "nothing repeats: the test could not fail"
    bad = client.http.post("/v1/completions", json={**ask, "logit_control": {"fresh": {}}})
    assert bad.status_code == 400
    assert bad.json()["error"]["param"] == "logit_control.fresh.penalty"


def test_both_runners_draw_the_same(v1: Client, v2: Client) -> None:
    ask: dict[str, Any] = {
        "prompt": "la la la la la la",
        "max_tokens": 8,
        "temperature": 0,
        "seed": 11,
        "logit_control": {"fresh": {"penalty": 50, "probability": 0.5}},
    }
    first = v1.choice(**ask)["token_ids"]
    assert v2.choice(**ask)["token_ids"] == first
    assert v1.choice(**ask)["token_ids"] == first
    others = {json.dumps(v1.choice(**{**ask, "seed": seed})["token_ids"]) for seed in range(6)}
    assert len(others) > 1, "the seed changes nothing"


@pytest.mark.parametrize("server", ["v1", "v2"])
@pytest.mark.parametrize("how", ["apply raises", "write raises", "not a number"])
def test_a_failure_ends_its_own_request(
    server: str, how: str, request: pytest.FixtureRequest
) -> None:
    client: Client = request.getfixturevalue(server)
    seen = {"top_k": "all", "stages": ["controlled"]}
    neighbour: dict[str, Any] = {"prompt": "The sea is", "max_tokens": 3, "distribution": seen}
    alone = client.choice(**neighbour)
    failing = {**neighbour, "model": MODEL, "logit_control": {"failing": {"how": how}}}
    with ThreadPoolExecutor(1) as beside:
        running = beside.submit(client.choice, **neighbour)
        status, error = client.refused("/v1/completions", failing)
        choice = running.result()
    assert (status, error["param"], error["code"]) == (500, FIELD, "control_failed")
    assert "'failing' failed" in error["message"]
    assert choice["token_ids"] == alone["token_ids"]
    rows = [array(each["distribution"]["controlled"]["logprobs"]) for each in (choice, alone)]
    assert abs(rows[0] - rows[1]).max() <= 1e-3
    assert client.http.get("/health").is_success
