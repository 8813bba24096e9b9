"""What clients see of two replicas behind a front, and what they lose when one is killed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import pyarrow as pa
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.deploy.fronts import Front, behind_ray, behind_router
from tests.integration.servers import MODEL
from tests.waiting import wait_for

TIMEOUT_SECONDS = 300
SESSIONS = [f"session-{number}" for number in range(12)]
"""So many that each replica gets some."""
TOKENS = 40


@pytest.fixture(scope="module", params=[behind_router, behind_ray])
def front(
    request: pytest.FixtureRequest, full: bool, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Front]:
    if not full:
        pytest.skip("only with --full: two servers, and a router or a Ray cluster")
    with request.param(tmp_path_factory.mktemp("front")) as running:
        yield running


@dataclass
class Asked:
    """A request, and what has come of it."""

    session: str
    streams: bool
    events: int = 0
    """Lines of the stream that have come."""
    ended: bool = False
    """Whether the answer is whole."""
    error: str = ""


def completion(prompt: str, tokens: int, **fields: Any) -> dict[str, Any]:
    greedy = {"model": MODEL, "temperature": 0, "ignore_eos": True}
    return {**greedy, "prompt": prompt, "max_tokens": tokens, **fields}


def ask(front: Front, session: str, prompt: str, **fields: Any) -> httpx.Response:
    """Return the answer to a short completion of a session."""
    answer = httpx.post(
        f"{front.url}/v1/completions",
        json=completion(prompt, 4, **fields),
        headers={"x-session-id": session},
        timeout=TIMEOUT_SECONDS,
    )
    assert answer.is_success, answer.text
    return answer


def counted(replica: str, name: str, **labels: str) -> float:
    """Return the sum of a replica's series of a name that have these labels."""
    families = text_string_to_metric_families(httpx.get(f"{replica}/metrics").text)
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def test_a_vector_that_one_replica_made_is_there_at_both_at_once(front: Front) -> None:
    body = {"name": "shore", "from": {"text": " shore"}}
    httpx.post(f"{front.replicas[0]}/v1/vectors", json=body, timeout=60).raise_for_status()
    steer = {"steer": [{"vector": "shore", "strength": 1.0}]}
    for session in SESSIONS:
        answer = ask(front, session, "We walk along the", logit_control=steer)
        assert " shore" in answer.json()["choices"][0]["text"]
    for replica in front.replicas:
        assert counted(replica, "sensefield_controlled_requests_total", kind="steer_logits") > 0


def test_a_session_finds_its_prefix_cached(front: Front) -> None:
    name = "vllm:prefix_cache_hits_total"
    before = sum(counted(replica, name) for replica in front.replicas)
    for turn in range(2):
        for session in SESSIONS:
            first = f"Of {session}: " + " ".join(f"item {number}" for number in range(40))
            ask(front, session, first + " and more" * turn)
    hits = sum(counted(replica, name) for replica in front.replicas) - before
    # Of each second turn all whole blocks but the last one.
    assert hits >= len(SESSIONS) * 64
    assert all(counted(replica, "vllm:prompt_tokens_total") > 0 for replica in front.replicas)


def test_arrow_and_errors_pass_as_they_are(front: Front) -> None:
    url, headers = f"{front.url}/v1/completions", {"accept": "application/vnd.apache.arrow.stream"}
    body = completion("The sea", 5, distribution={"top_k": 3})
    answer = httpx.post(url, json=body, headers=headers, timeout=TIMEOUT_SECONDS)
    assert answer.headers["content-type"] == headers["accept"]
    assert pa.ipc.open_stream(answer.content).read_all().num_rows == 5
    refused = httpx.post(url, json={**body, "logit_control": {"bias": [{"token_id": -1}]}})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"].startswith("logit_control.bias[0]")


def test_a_reader_that_leaves_ends_its_request(front: Front) -> None:
    def total(name: str) -> float:
        return sum(counted(replica, name) for replica in front.replicas)

    generated = total("vllm:generation_tokens_total")
    body = completion("The sea", 400, stream=True)
    with httpx.stream("POST", f"{front.url}/v1/completions", json=body, timeout=60) as answer:
        next(answer.iter_lines())
    wait_for(lambda: total("vllm:num_requests_running") == 0)
    assert total("vllm:generation_tokens_total") < generated + 400


def test_a_killed_replica_loses_only_what_had_begun(front: Front) -> None:
    """The last test here: it ends a replica."""
    streams = [Asked(session, streams=True) for session in SESSIONS]
    answers = [Asked(session, streams=False) for session in SESSIONS[:4]]
    load = [*streams, *answers]
    with (
        httpx.Client(base_url=front.url, timeout=TIMEOUT_SECONDS) as client,
        ThreadPoolExecutor(len(load)) as pool,
    ):
        for asked in streams:
            pool.submit(send, client, asked)
        # Each replica takes two at a time, the others wait: of three, each has one at least.
        wait_for(lambda: sum(asked.events > 0 and not asked.ended for asked in streams) >= 3)
        for asked in answers:
            pool.submit(send, client, asked)
        front.kill_one()
    lost = [asked for asked in load if not asked.ended]
    assert all(asked.error for asked in lost), "an answer that is cut short must be an error"
    assert [asked for asked in lost if not (asked.streams and asked.events)] == []
    assert lost, "the kill came too late to do anything"
    for session in SESSIONS:
        ask(front, session, "The sea")


def send(client: httpx.Client, asked: Asked) -> None:
    """Send a request and note what comes of it."""
    body = completion(f"A story for {asked.session}:", TOKENS, stream=asked.streams)
    headers = {"x-session-id": asked.session}
    try:
        if not asked.streams:
            answer = client.post("/v1/completions", json=body, headers=headers)
            asked.ended = answer.is_success
            asked.error = "" if asked.ended else f"{answer.status_code} {answer.text}"
            return
        with client.stream("POST", "/v1/completions", json=body, headers=headers) as stream:
            stream.raise_for_status()
            for line in stream.iter_lines():
                asked.events += line.startswith("data: {")
                asked.ended |= line == "data: [DONE]"
    except httpx.HTTPError as error:
        asked.error = repr(error)
