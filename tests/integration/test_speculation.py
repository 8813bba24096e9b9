"""Speculative decoding: the same texts and rows as without it, position by position."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from service.embedded_model import embedded_model_dir
from tests.integration.client import Client, array
from tests.integration.offline import vector
from tests.integration.servers import MODEL, V2_ENVIRONMENT, serving

pytestmark = pytest.mark.xdist_group("v2")

SPECULATION = json.dumps(
    {
        "method": "ngram",
        "num_speculative_tokens": 2,
        "prompt_lookup_min": 1,
        "prompt_lookup_max": 2,
    }
)
# Tokens that come again are what n-grams can draft.
PROMPT = "red green blue red green blue red green blue red green"
TOKENS = 7
STAGES = ["base", "controlled"]
SOME = {"top_k": 7, "stages": STAGES}
REQUESTS: list[dict[str, Any]] = [
    {},
    {"logprobs": 3, "stop": [" gree"]},
    {
        "distribution": {"top_k": 50, "top_p": 0.9, "stages": ["base"], "encoding": "json"},
        "logprobs": 2,
    },
    {
        "logit_control": {
            "bias": [
                {"text": " greenish", "add": 6.0, "when": {"from": 2, "until": 7}},
                {"token_id": 28, "add": 30.0, "when": {"from": 3, "until": 4}},
            ]
        },
        "distribution": {"top_k": 300, "stages": STAGES},
    },
    {
        "logit_control": {
            "steer": [{"vector": "direction", "strength": 1.5, "when": {"from": 2, "until": 5}}],
            "suppress": [{"text": "n g"}],
        },
        "distribution": SOME,
    },
    {
        "logit_control": {
            "steer": [{"vector": "layers", "strength": 40.0, "at": "residual", "when": {"from": 3}}]
        },
        "distribution": SOME,
    },
]


@pytest.fixture(scope="module")
def drafting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A V2 server that drafts two tokens wherever a text repeats itself."""
    flags = ("--max-model-len", "128", "--max-num-seqs", "8", "--speculative-config", SPECULATION)
    with serving(tmp_path_factory.mktemp("drafting"), flags, V2_ENVIRONMENT) as server:
        client = Client(server)
        yield client
        client.http.close()


def put_vectors(client: Client) -> None:
    for name, tensors in {
        "direction": {"direction": vector("direction", [0])[0]},
        "layers": {"layer.9": vector("layers", [9])[0]},
    }.items():
        body = safetensors.numpy.save(tensors)
        assert client.http.put(f"/v1/vectors/{name}", content=body).is_success


Answers = tuple[list[dict[str, Any]], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def answers(v1: Client, drafting: Client) -> Answers:
    """The same requests beside one another, with drafts on V2 and without any on V1."""
    for client in (v1, drafting):
        put_vectors(client)
    requests = [{"prompt": PROMPT, "max_tokens": TOKENS, **request} for request in REQUESTS]
    with ThreadPoolExecutor(2) as pool:
        found, wanted = pool.map(lambda client: client.together(requests), (drafting, v1))
    return found, wanted


def counted(client: Client, name: str) -> float:
    """Return one of vLLM's counts of drafts."""
    start = f"vllm:spec_decode_num_{name}_total"
    lines = client.http.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(start))


def numbers_of(choice: dict[str, Any]) -> dict[str, Any]:
    """Return every number that an answer tells of its tokens."""
    told = choice.get("distribution") or {}
    found = {name: array(values) for name, values in told.get("sampled", {}).items()}
    for stage in STAGES:
        for name, values in told.get(stage, {}).items():
            found[f"{stage} {name}"] = array(values)
    if "kl" in told:
        found["kl"] = array(told["kl"])
    if choice.get("logprobs"):
        found["logprobs"] = array(choice["logprobs"]["token_logprobs"])
        tops = [sorted(top.values()) for top in choice["logprobs"]["top_logprobs"]]
        found["top_logprobs"] = np.concatenate(tops)
    return found


def test_texts_and_rows_are_those_without_drafts(answers: Answers, drafting: Client) -> None:
    drafted, accepted = (counted(drafting, name) for name in ("draft_tokens", "accepted_tokens"))
    assert 0 < accepted < drafted, "nothing was accepted or nothing rejected: no test of either"
    found, wanted = answers
    for one, other, request in zip(found, wanted, REQUESTS, strict=True):
        assert one["token_ids"] == other["token_ids"], request
        assert one["text"] == other["text"], request
        assert one["finish_reason"] == other["finish_reason"], request
        mine, theirs = numbers_of(one), numbers_of(other)
        assert mine.keys() == theirs.keys()
        for name, values in mine.items():
            assert values.shape == theirs[name].shape, (name, request)
            # The order of tokens far down a row hangs on the last bits of their logits.
            if "ids" not in name and "rank" not in name:
                same = np.isclose(values, theirs[name], rtol=0, atol=1e-3)
                assert same.all(), (name, request)
        if "token_id" in mine:
            assert mine["token_id"].tolist() == one["token_ids"]
    plain, stopped, *_ = found
    assert stopped["finish_reason"] == "stop"
    controlled = [choice["token_ids"] for choice in found[3:]]
    assert all(token_ids != plain["token_ids"] for token_ids in controlled), "control did nothing"


def test_each_event_of_a_stream_has_the_rows_of_its_tokens(drafting: Client) -> None:
    body = {
        "model": MODEL,
        "prompt": PROMPT,
        "max_tokens": TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "return_token_ids": True,
        "distribution": {"top_k": 1},
    }
    sizes = []
    for event in drafting.events("/v1/completions", body):
        for choice in event["choices"]:
            rows = choice["distribution"]
            assert array(rows["sampled"]["token_id"]).tolist() == choice["token_ids"]
            assert rows["positions"] == len(choice["token_ids"])
            sizes.append(rows["positions"])
    assert sum(sizes) == TOKENS
    assert max(sizes) > 1, "no step accepted a draft"


def test_requests_that_have_no_token_left_end_alone(answers: Answers, drafting: Client) -> None:
    allowed = [28, 30]
    suppress = [{"token_id": token, "when": {"from": 3}} for token in allowed]
    ending: dict[str, Any] = {
        **{"model": MODEL, "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0},
        **{"allowed_token_ids": allowed, "logit_control": {"suppress": suppress}},
    }
    both = (ending, {**ending, "temperature": 1, "seed": 1, "distribution": {"top_k": 2}})
    with ThreadPoolExecutor(3) as pool:
        beside = pool.submit(drafting.choice, PROMPT, max_tokens=TOKENS)
        for status, error in pool.map(lambda body: drafting.refused("/v1/completions", body), both):
            assert (status, error["param"]) == (400, "logit_control.suppress"), error
        assert beside.result()["token_ids"] == answers[0][0]["token_ids"]


@pytest.mark.usefixtures("only_full")
def test_v1_refuses_to_draft_before_it_loads_the_model(tmp_path: Path) -> None:
    command = [
        *(str(Path(sys.executable).parent / "sensefield"), "serve", str(embedded_model_dir())),
        *("--max-model-len", "64", "--vectors-dir", str(tmp_path)),
        *("--speculative-config", SPECULATION),
    ]
    variables = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    ended = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "sensefield: speculative decoding needs vLLM's V2 runner" in ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
