"""Requests that take too long, to be sent or to be answered: cut off, told, and nothing is left."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import orjson
import pyarrow as pa
import pytest

from tests.integration.arrow_client import body
from tests.integration.client import Client
from tests.integration.guarded.server import SECRETS, Guarded
from tests.integration.servers import MODEL
from tests.waiting import wait_for

pytestmark = pytest.mark.xdist_group("guarded")

LONG = {"model": MODEL, "max_tokens": 900, "temperature": 0, "ignore_eos": True}
STORY = [{"role": "user", "content": "Tell me a long story."}]
CHAT = LONG | {"messages": STORY}
TEXT: dict[str, Any] = LONG | {"prompt": "The history of the city", "n": 2, "temperature": 1}
SOON = {"x-request-timeout": "2"}
AT_ONCE = {"x-request-timeout": "0.6"}
"""Before a text that ends by itself has ended, on a fast machine too."""
ARROW = {"accept": "application/vnd.apache.arrow.stream"}
WIDE = {"top_k": "all"}
OF_REQUESTS = (
    *("vllm:kv_cache_usage_perc", "vllm:num_requests_running", "sensefield_in_flight_requests"),
    "sensefield_distribution_promised_bytes",
)


@pytest.fixture
def alice(guarded: Guarded) -> Iterator[Client]:
    client = guarded.client("alice")
    with client.http:
        yield client


def wait_until_nothing_is_left(guarded: Guarded, alice: Client) -> None:
    """Return when no request holds anything; the engine tells after a step, so one is asked."""

    def nothing_is_left() -> bool:
        alice.complete("Hi", max_tokens=1)
        lines = meg.get(f"{guarded.metrics_url}/metrics").text.splitlines()
        found = [line for line in lines if line.startswith(OF_REQUESTS)]
        assert len(found) >= len(OF_REQUESTS)
        return not any(float(line.rpartition(" ")[2]) for line in found)

    with guarded.client("meg").http as meg:
        wait_for(nothing_is_left)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", CHAT | {"distribution": {"top_k": 20}}),
        ("/v1/completions", TEXT),
        ("/v1/responses", {"model": MODEL, "input": "Tell me a long story.", "temperature": 0}),
        ("/v1/score", {"prompt": "a" * 900, "continuations": [" b c d"] * 256}),
    ],
)
def test_a_late_answer_is_a_504(guarded: Guarded, alice: Client, path: str, body: Any) -> None:
    answer = alice.http.post(path, json=body, headers=AT_ONCE)
    assert answer.status_code == 504, answer.text
    assert answer.json()["error"]["code"] == "deadline_exceeded"
    wait_until_nothing_is_left(guarded, alice)


@pytest.mark.parametrize(
    ("path", "body", "headers", "least"),
    [
        ("/v1/chat/completions", CHAT | {"distribution": {"top_k": 20}}, SOON, 2),
        ("/v1/completions", TEXT, SOON, 2),
        ("/v1/messages", {"model": MODEL, "messages": STORY, "max_tokens": 400}, AT_ONCE, 1),
    ],
)
def test_a_late_stream_ends_with_an_error(
    guarded: Guarded, alice: Client, path: str, body: Any, headers: Any, least: int
) -> None:
    answer = alice.http.post(path, json=body | {"stream": True}, headers=headers)
    assert answer.status_code == 200
    lines = [line for line in answer.text.splitlines() if line.startswith("data: ")]
    assert len(lines) >= least
    is_anthropic = path == "/v1/messages"
    assert ("event: error\ndata: " + lines[-1][6:] in answer.text) == is_anthropic
    error = json.loads(lines[-1].removeprefix("data: "))["error"]
    assert error["type"] == "timeout_error"
    assert is_anthropic or error["code"] == "deadline_exceeded"
    wait_until_nothing_is_left(guarded, alice)


def test_a_late_arrow_stream_breaks_off_and_says_why(guarded: Guarded, alice: Client) -> None:
    body = CHAT | {"distribution": {"top_k": 20}}
    answer = alice.http.post("/v1/chat/completions", json=body, headers=SOON | ARROW)
    rows, told = 0, b""
    with pa.ipc.open_stream(answer.content) as reader:
        while not told:
            batch, closing = reader.read_next_batch_with_custom_metadata()
            rows += batch.num_rows
            told = closing["sensefield.error"] if closing else b""
        with pytest.raises(pa.ArrowInvalid):
            reader.read_next_batch()
    assert rows > 0
    assert json.loads(told)["error"]["code"] == "deadline_exceeded"
    wait_until_nothing_is_left(guarded, alice)


def test_who_is_slow_to_ask_is_cut_off(guarded: Guarded) -> None:
    head = b"%b %b HTTP/1.1\r\nhost: x\r\nauthorization: Bearer " + SECRETS["alice"].encode()
    body = b"\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"
    slow = [
        head % (b"POST", b"/v1/chat/completions"),
        head % (b"POST", b"/v1/chat/completions") + body,
        head % (b"POST", b"/tokenize") + body,
        head % (b"PUT", b"/v1/vectors/slow") + body,
    ]
    with ThreadPoolExecutor(len(slow)) as pool:
        answers = list(pool.map(guarded.raw, slow))
    for answer, param in zip(answers, ("headers", "body", "body", "body"), strict=True):
        told, _, error = answer.partition(b"\r\n\r\n")
        assert told.startswith(b"HTTP/1.1 408 "), answer
        assert b"connection: close" in told.lower()
        assert json.loads(error)["error"]["param"] == param
    log = guarded.server.log.read_text()
    assert "Exception in ASGI application" not in log


def test_a_reader_who_takes_nothing_is_cut_off(guarded: Guarded, alice: Client) -> None:
    counted = "sensefield_slow_readers_total"
    with guarded.client("meg").http as meg:

        def slow_readers() -> float:
            lines = meg.get(f"{guarded.metrics_url}/metrics").text.splitlines()
            return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(counted))

        before = slow_readers()
        with connected(guarded, body(TEXT["prompt"], max_tokens=400, distribution=WIDE)) as reader:
            assert reader.recv(1 << 10).startswith(b"HTTP/1.1 200")
            wait_for(lambda: slow_readers() == before + 1)
    wait_until_nothing_is_left(guarded, alice)


def connected(guarded: Guarded, request: dict[str, Any]) -> socket.socket:
    """Send a request for Arrow over a socket that takes in little by itself."""
    address = urlsplit(guarded.server.url)
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 10)
    reader.connect((address.hostname, address.port))
    data = orjson.dumps(request)
    head = (
        f"POST /v1/completions HTTP/1.1\r\nhost: {address.netloc}\r\n"
        f"authorization: Bearer {SECRETS['alice']}\r\naccept: {ARROW['accept']}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    reader.sendall(head.encode() + data)
    return reader
