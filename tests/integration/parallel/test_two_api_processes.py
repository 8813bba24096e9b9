"""Two API processes that serve one engine: what one is told, both know, and neither harms it."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import psutil
import pytest
import safetensors.numpy

from loadtests.measure.processes import living
from tests.faults.supervisor import process_of
from tests.faults.test_stops import die
from tests.integration.client import TIMEOUT_SECONDS
from tests.integration.offline import vector
from tests.integration.parallel.conftest import Several
from tests.integration.servers import MODEL, OwnServer

pytestmark = pytest.mark.xdist_group("parallel")

CONNECTIONS = 16


@pytest.fixture
def server(two_apis: Several) -> OwnServer:
    return two_apis.server


def ask(
    server: OwnServer, steer: list[dict[str, Any]], grammar: dict[str, Any] | None = None
) -> list[httpx.Response]:
    """Return the answers to one request on several connections: each goes to either process."""
    body = {
        "model": MODEL,
        "prompt": "The history of the city begins with a small group of people who settled near "
        "the river and built houses, and built houses, and built houses, and then the sea",
        "max_tokens": 6,
        "temperature": 0,
        "ignore_eos": True,
        "logit_control": {"steer": steer},
        "structured_outputs": grammar,
    }

    def post(_: int) -> httpx.Response:
        with httpx.Client(timeout=TIMEOUT_SECONDS) as client:
            return client.post(f"{server.url}/v1/completions", json=body)

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return list(pool.map(post, range(CONNECTIONS)))


def texts(answers: list[httpx.Response]) -> set[str]:
    assert all(answer.is_success for answer in answers)
    return {answer.json()["choices"][0]["text"] for answer in answers}


def put(server: OwnServer, name: str, seed: str) -> None:
    layers = {"layer.14": vector(seed, [14])[0], "layer.20": vector(seed, [20])[0]}
    answer = httpx.put(f"{server.url}/v1/vectors/{name}", content=safetensors.numpy.save(layers))
    assert answer.is_success


def test_both_processes_answer_and_steer_alike(server: OwnServer) -> None:
    put(server, "first", "one")
    plain = texts(ask(server, []))
    found = [
        texts(ask(server, [{"vector": "first", "strength": strength, "at": at}]))
        for at, strength in (("residual", 60.0), ("logits", 3.0))
    ]
    assert [len(each) for each in (plain, *found)] == [1, 1, 1]
    assert len(set.union(plain, *found)) == 3


def test_equal_steering_shares_the_cache_of_both(server: OwnServer) -> None:
    put(server, "cached", "cached")
    entry = {"vector": "cached", "strength": 30.0, "at": "residual"}
    ask(server, [entry])
    before = hits(server)
    ask(server, [entry])
    assert hits(server) - before >= CONNECTIONS * 32


def hits(server: OwnServer) -> float:
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    counts = [line for line in lines if line.startswith("vllm:prefix_cache_hits_total")]
    return sum(float(line.rpartition(" ")[2]) for line in counts)


def test_a_content_that_one_process_lets_go_stays_for_the_other(server: OwnServer) -> None:
    """A name deleted and put again, by either process, means the same to both."""
    put(server, "kept", "same")
    entry = {"vector": "kept", "strength": 3.0}
    expected = texts(ask(server, [entry]))
    for _ in range(4):
        assert httpx.delete(f"{server.url}/v1/vectors/kept").status_code == 204
        put(server, "kept", "same")
        assert texts(ask(server, [entry])) == expected
    assert httpx.delete(f"{server.url}/v1/vectors/kept").status_code == 204
    assert {answer.status_code for answer in ask(server, [entry])} == {404}


def test_a_contrast_is_taken_whichever_process_is_asked(server: OwnServer) -> None:
    sides = {"positive": ["I love this"], "negative": ["I hate this"], "layers": [10]}
    made = []
    for number in range(3):
        body = {"name": f"contrast-{number}", "from": {"contrast": sides}}
        answer = httpx.post(f"{server.url}/v1/vectors", json=body, timeout=TIMEOUT_SECONDS)
        assert answer.is_success, answer.text
        content = httpx.get(f"{server.url}/v1/vectors/contrast-{number}/content").content
        made.append(safetensors.numpy.load(content)["layer.10"])
    for other in made[1:]:
        np.testing.assert_allclose(made[0], other, atol=1e-3)


@pytest.mark.usefixtures("only_full")
def test_a_grammar_is_tried_whichever_process_is_asked(server: OwnServer) -> None:
    # The end is ignored, and more text follows it.
    assert {text[:7] for text in texts(ask(server, [], {"choice": ["a river"]}))} == {"a river"}
    refused = ask(server, [], {"regex": ".?" * 40})
    assert {answer.status_code for answer in refused} == {400}


def clients(server: OwnServer, process: int) -> int:
    """Return with how many clients a process of the server talks."""
    port = urlsplit(server.url).port
    found = psutil.Process(process).net_connections("tcp")
    return sum(each.laddr.port == port and each.status == "ESTABLISHED" for each in found)


def test_a_request_leaves_a_span(two_apis: Several) -> None:
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    headers = {"traceparent": f"00-{trace}-{parent}-01", "x-request-id": "traced"}
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    control = {"bias": [{"text": " river", "add": 2.0}]}
    answer = two_apis.client.http.post(
        "/v1/chat/completions",
        json={**body, "ignore_eos": True, "temperature": 0.5, "logit_control": control},
        headers=headers,
    )
    told = answer.json()
    span = two_apis.collector.of_trace(trace)
    assert (span.service, span.name, span.parent_id) == ("sensefield", "llm_request", parent)
    assert (
        span.attributes.items()
        >= {
            "gen_ai.request.id": told["id"],
            "gen_ai.request.max_tokens": 4,
            "gen_ai.request.temperature": 0.5,
            "gen_ai.usage.prompt_tokens": told["usage"]["prompt_tokens"],
            "gen_ai.usage.completion_tokens": 4,
        }.items()
    )
    assert answer.headers["x-request-id"] in span.attributes["gen_ai.request.id"]
    assert span.attributes["gen_ai.latency.time_to_first_token"] > 0


async def test_a_killed_engine_is_told_by_both(server: OwnServer) -> None:
    """The last test here: it ends the server."""

    def kill() -> None:
        assert sum(clients(server, each) > 0 for each in living(server.pid)) == 2
        os.kill(process_of(server, "EngineCore"), signal.SIGKILL)

    # A process that did not start the engine sees its end by itself.
    await die(server, kill, CONNECTIONS, timely=False)
