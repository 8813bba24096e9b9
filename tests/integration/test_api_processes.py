"""Two API processes that serve one engine: what one is told, both know, and neither harms it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
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
from tests.integration.client import TIMEOUT_SECONDS
from tests.integration.offline import vector
from tests.integration.servers import MODEL, Server, serving
from tests.waiting import wait_for

CONNECTIONS = 16


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    flags = ("--max-model-len", "256", "--max-num-seqs", "16", "--block-size", "32")
    processes = ("--api-server-count", "2")
    with serving(tmp_path_factory.mktemp("processes"), (*flags, *processes)) as running:
        yield running


def ask(
    server: Server, steer: list[dict[str, Any]], grammar: dict[str, Any] | None = None
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


def put(server: Server, name: str, seed: str) -> None:
    layers = {"layer.14": vector(seed, [14])[0], "layer.20": vector(seed, [20])[0]}
    answer = httpx.put(f"{server.url}/v1/vectors/{name}", content=safetensors.numpy.save(layers))
    assert answer.is_success


def test_both_processes_answer_and_steer_alike(server: Server) -> None:
    put(server, "first", "one")
    plain = texts(ask(server, []))
    found = [
        texts(ask(server, [{"vector": "first", "strength": strength, "at": at}]))
        for at, strength in (("residual", 60.0), ("logits", 3.0))
    ]
    assert [len(each) for each in (plain, *found)] == [1, 1, 1]
    assert len(set.union(plain, *found)) == 3


def test_equal_steering_shares_the_cache_of_both(server: Server) -> None:
    put(server, "cached", "cached")
    entry = {"vector": "cached", "strength": 30.0, "at": "residual"}
    ask(server, [entry])
    before = hits(server)
    ask(server, [entry])
    assert hits(server) - before >= CONNECTIONS * 32


def hits(server: Server) -> float:
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    counts = [line for line in lines if line.startswith("vllm:prefix_cache_hits_total")]
    return sum(float(line.rpartition(" ")[2]) for line in counts)


def test_a_content_that_one_process_lets_go_stays_for_the_other(server: Server) -> None:
    """A name deleted and put again, by either process, means the same to both."""
    put(server, "kept", "same")
    entry = {"vector": "kept", "strength": 3.0}
    expected = texts(ask(server, [entry]))
    for _ in range(12):
        assert httpx.delete(f"{server.url}/v1/vectors/kept").status_code == 204
        put(server, "kept", "same")
        assert texts(ask(server, [entry])) == expected
    assert httpx.delete(f"{server.url}/v1/vectors/kept").status_code == 204
    assert {answer.status_code for answer in ask(server, [entry])} == {404}


def test_a_contrast_is_taken_whichever_process_is_asked(server: Server) -> None:
    sides = {"positive": ["I love this"], "negative": ["I hate this"], "layers": [10]}
    made = []
    for number in range(6):
        body = {"name": f"contrast-{number}", "from": {"contrast": sides}}
        answer = httpx.post(f"{server.url}/v1/vectors", json=body, timeout=TIMEOUT_SECONDS)
        assert answer.is_success, answer.text
        content = httpx.get(f"{server.url}/v1/vectors/contrast-{number}/content").content
        made.append(safetensors.numpy.load(content)["layer.10"])
    for other in made[1:]:
        np.testing.assert_allclose(made[0], other, atol=1e-3)


def test_a_grammar_is_tried_whichever_process_is_asked(server: Server) -> None:
    # The end is ignored, and more text follows it.
    assert {text[:7] for text in texts(ask(server, [], {"choice": ["a river"]}))} == {"a river"}
    refused = ask(server, [], {"regex": ".?" * 40})
    assert {answer.status_code for answer in refused} == {400}


def clients(server: Server, process: int) -> int:
    """Return with how many clients a process of the server talks."""
    port = urlsplit(server.url).port
    found = psutil.Process(process).net_connections("tcp")
    return sum(each.laddr.port == port and each.status == "ESTABLISHED" for each in found)


def test_a_killed_engine_is_told_by_both(server: Server) -> None:
    """The last test here: it ends the server."""
    body = {"model": MODEL, "prompt": "The sea", "max_tokens": 200, "ignore_eos": True}
    begun = threading.Barrier(CONNECTIONS + 1)

    def last_event(_: int) -> str:
        with httpx.stream(
            "POST",
            f"{server.url}/v1/completions",
            json={**body, "stream": True},
            timeout=TIMEOUT_SECONDS,
        ) as answer:
            lines = answer.iter_lines()
            next(lines)
            begun.wait(TIMEOUT_SECONDS)
            return [line for line in lines if line][-1]

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        last = pool.map(last_event, range(CONNECTIONS))
        begun.wait(TIMEOUT_SECONDS)
        assert sum(clients(server, each) > 0 for each in living(server.process.pid)) == 2
        os.kill(process_of(server, "EngineCore"), signal.SIGKILL)
        for event in last:
            assert event.startswith('data: {"error":')
    assert server.process.wait(TIMEOUT_SECONDS) != 0
    wait_for(lambda: living(server.process.pid) == [])
