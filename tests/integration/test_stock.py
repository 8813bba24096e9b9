"""What stock vLLM gives, Sensefield gives too: same values, same shape."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from loadtests.measure.servers import free_port
from service.embedded_model import embedded_model_dir
from tests.integration.client import TIMEOUT_SECONDS, Client
from tests.integration.servers import KV_CACHE, MODEL, UNBOUND, launch, stop

CHAT = {"messages": [{"role": "user", "content": "Name a colour."}], "max_tokens": 6}
REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", CHAT),
    ("/v1/chat/completions", {**CHAT, "logprobs": True, "top_logprobs": 5}),
    ("/v1/chat/completions", {**CHAT, "logprobs": True, "top_logprobs": 1000}),
    ("/v1/chat/completions", {**CHAT, "logprobs": True}),
    ("/v1/chat/completions", {**CHAT, "logit_bias": {"5065": 20}}),
    ("/v1/completions", {"prompt": "A colour:", "max_tokens": 5, "logprobs": 4}),
    ("/v1/completions", {"prompt": "A colour:", "max_tokens": 5, "logprobs": 1000}),
    ("/v1/completions", {"prompt": ["A", "B"], "max_tokens": 3, "logprobs": 1, "echo": True}),
    ("/v1/completions", {"prompt": "It", "max_tokens": 3, "logit_bias": {"28": -100}}),
]
PART = "\ufffd"
# What differs from answer to answer by nature.
VOLATILE = {"id", "created", "system_fingerprint"}


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Stock vLLM's own server in the same environment, with our plugins left out."""
    port = free_port()
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(embedded_model_dir()), "--served-model-name", MODEL),
        *("--port", str(port), "--host", "127.0.0.1", "--enforce-eager", "--dtype", "float32"),
        *("--max-model-len", "1024", "--max-num-seqs", "16", *KV_CACHE),
        *("--max-logprobs", "-1"),
    ]
    environment = {"HF_HUB_OFFLINE": "1", "VLLM_PLUGINS": "none", **UNBOUND}
    log = tmp_path_factory.mktemp("stock") / "server.log"
    server = launch(command, port, log, environment)
    try:
        with httpx.Client(base_url=server.url, timeout=TIMEOUT_SECONDS) as client:
            yield client
    finally:
        stop(server)


@pytest.mark.parametrize(("path", "body"), REQUESTS)
def test_answers_equal_stock(
    stock: httpx.Client, v1: Client, path: str, body: dict[str, Any]
) -> None:
    request = {"model": MODEL, "temperature": 0, "seed": 1, **body}
    theirs, ours = (client.post(path, json=request) for client in (stock, v1.http))
    assert theirs.is_success, theirs.text
    assert ours.is_success, ours.text
    assert_alike(ours.json(), theirs.json())


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {**CHAT, "logprobs": True, "top_logprobs": 20}),
        ("/v1/completions", {"prompt": "A colour:", "max_tokens": 5, "logprobs": 20}),
    ],
)
def test_streams_equal_stock(
    stock: httpx.Client, v1: Client, path: str, body: dict[str, Any]
) -> None:
    streams = []
    for client in (stock, v1.http):
        asked = {"model": MODEL, "temperature": 0, **body, "stream": True}
        with client.stream("POST", path, json=asked) as answer:
            lines = [line for line in answer.iter_lines() if line]
        streams.append(joined([json.loads(line[6:]) for line in lines if "{" in line]))
    assert_alike(streams[1], streams[0])


def joined(chunks: list[Any]) -> Any:
    """Return the chunks as one: vLLM tells several tokens in one where its API is behind."""
    whole, *others = chunks
    (choice,) = whole["choices"]
    for chunk in others:
        assert chunk["id"] == whole["id"]
        whole |= {field: value for field, value in chunk.items() if field != "choices"}
        (more,) = chunk["choices"]
        if "delta" in choice:
            choice["delta"]["content"] += more["delta"].get("content") or ""
        else:
            choice["text"] += more["text"]
        if choice["logprobs"] is None:
            choice["logprobs"] = more["logprobs"]
        elif more["logprobs"] is not None:
            for field in more["logprobs"]:
                choice["logprobs"][field] += more["logprobs"][field]
        choice["finish_reason"] = more["finish_reason"]
    return whole


def assert_alike(ours: Any, theirs: Any, path: str = "") -> None:
    """Check that two answers are equal, numbers to within float32 arithmetic.

    Of a token that is a part of a character ours tells the exact bytes; vLLM has texts only.
    """
    if isinstance(theirs, dict):
        named, others = (
            {key for key in each if key and PART not in key and not key.startswith("bytes:")}
            for each in (ours, theirs)
        )
        assert named == others, path
        for key in named - VOLATILE:
            assert_alike(ours[key], theirs[key], f"{path}.{key}")
    elif isinstance(theirs, list) and path.endswith("].top_logprobs"):  # a chat's
        # Alternatives that are as good as tied may change places.
        for mine, other in zip(ours, theirs, strict=True):
            assert_alike(mine["logprob"], other["logprob"], f"{path}[].logprob")
        of_ours, of_theirs = ({each["token"]: each for each in all_} for all_ in (ours, theirs))
        assert_alike(of_ours, of_theirs, path)
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs), path
        for at, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            assert_alike(mine, other, f"{path}[{at}]")
    elif isinstance(theirs, float):
        assert ours == pytest.approx(theirs, abs=1e-4), path
    else:
        assert ours == theirs, path
