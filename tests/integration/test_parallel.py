"""One model over two ranks answers as over one, and tells of each request in a trace."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from prometheus_client.parser import text_string_to_metric_families

from loadtests.measure.processes import living
from service.embedded_model import embedded_model_dir
from tests.integration.client import Client, array
from tests.integration.collector import Collector, collecting
from tests.integration.offline import vector
from tests.integration.servers import MODEL, serving

LIMITS = ("--max-model-len", "256", "--max-num-seqs", "8", "--block-size", "32")
PROMPT = "The history of the city begins with a small group of people who"
BIAS = [{"text": " river", "add": 12.0}, {"token_id": 49151, "add": -3.0}]
SUPPRESS = [{"text": "the", "ignore_case": True}]
STEER = [{"vector": "shore", "strength": 0.3}]
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


@dataclass(frozen=True)
class Ranks:
    """A server of two ranks, and where its spans go."""

    client: Client
    collector: Collector
    kind: str


@pytest.fixture(scope="module")
def alone(v1: Client) -> Client:
    """A server of one rank, with the vectors that are asked for."""
    make_vectors(v1)
    return v1


@pytest.fixture(scope="module", params=["tensor", "data"])
def ranks(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ranks]:
    folder = tmp_path_factory.mktemp(request.param)
    model = divisible(folder / "model") if request.param == "tensor" else None
    with collecting() as collector:
        flags = (*LIMITS, f"--{request.param}-parallel-size", "2", "--api-server-count", "1")
        traces = ("--otlp-traces-endpoint", collector.endpoint)
        with serving(folder, (*flags, *traces), collector.environment, model) as server:
            client = Client(server)
            make_vectors(client)
            yield Ranks(client, collector, request.param)
            client.http.close()


def divisible(folder: Path) -> Path:
    """Save the embedded model with heads of zeros beside its 9, which two ranks cannot share.

    Four groups of three heads instead of three groups; the fourth adds nothing.
    """
    source = embedded_model_dir()
    folder.mkdir()
    config = json.loads((source / "config.json").read_text())
    heads = {"num_attention_heads": 12, "num_key_value_heads": 4}
    (folder / "config.json").write_text(json.dumps(config | heads))
    for name in ("generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).symlink_to(source / name)
    (folder / "chat_template.jinja").symlink_to(source / "chat_template.jinja")
    weights = safetensors.torch.load_file(source / "model.safetensors")
    for name, weight in weights.items():
        match name.split(".")[-2]:
            case "q_proj" | "k_proj" | "v_proj":
                weights[name] = torch.cat((weight, weight.new_zeros(len(weight) // 3, 576)))
            case "o_proj":
                weights[name] = torch.cat((weight, weight.new_zeros(576, 192)), dim=1)
    safetensors.torch.save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def make_vectors(client: Client) -> None:
    """Make one of the unembedding, one of the residual stream and one of contrasting prompts."""
    push = {f"layer.{n}": vector("push", [n])[0] for n in (10, 20)}
    client.http.put("/v1/vectors/push", content=safetensors.numpy.save(push)).raise_for_status()
    for name, source in (("shore", {"text": " shore"}), ("mood", {"contrast": CONTRAST})):
        body = {"name": name, "from": source, "replace": True}
        client.http.post("/v1/vectors", json=body).raise_for_status()


def answers(client: Client) -> list[dict[str, Any]]:
    """Return the choices of all requests, each sent twice, beside one another."""
    seen = {"top_k": "all", "stages": STAGES}
    asked = {"prompt": PROMPT, "max_tokens": 10, "distribution": seen}
    return client.together([{**asked, "logit_control": each} for each in REQUESTS.values()] * 2)


def test_text_and_rows_are_those_of_one_rank(ranks: Ranks, alone: Client) -> None:
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


def test_both_ranks_worked(ranks: Ranks) -> None:
    if ranks.kind == "tensor":
        titles = {title(process) for process in living(ranks.client.server.process.pid)}
        assert {"VLLM::Worker_TP0", "VLLM::Worker_TP1"} <= titles
        return
    answers(ranks.client)
    metrics = ranks.client.http.get("/metrics").text
    finished = {
        sample.labels["engine"]
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == "vllm:request_success_total" and sample.value > 0
    }
    assert finished == {"0", "1"}


def title(process: int) -> str:
    return Path(f"/proc/{process}/cmdline").read_bytes().partition(b"\0")[0].decode().strip()


def test_vectors_are_made_and_read_as_by_one_rank(ranks: Ranks, alone: Client) -> None:
    for name in ("shore", "mood"):
        found, expected = (
            safetensors.numpy.load(client.http.get(f"/v1/vectors/{name}/content").content)
            for client in (ranks.client, alone)
        )
        assert found.keys() == expected.keys()
        for layer, direction in expected.items():
            np.testing.assert_allclose(found[layer], direction, atol=1e-3)
    for path in ("/v1/vectors/mood/nearest?k=5", "/v1/tokens/nearest?text=%20shore&k=5"):
        ids = [ids_of(client.http.get(path).json()) for client in (ranks.client, alone)]
        assert ids[0] == ids[1]


def ids_of(told: Any) -> list[int]:
    """Return all token ids of an answer, in order."""
    if isinstance(told, dict):
        own = [told["token_id"]] if "token_id" in told else []
        return own + [each for value in told.values() for each in ids_of(value)]
    return [each for value in told for each in ids_of(value)] if isinstance(told, list) else []


def test_the_lens_reads_the_layers_of_one_rank(ranks: Ranks, alone: Client) -> None:
    body = {"prompt": PROMPT, "layers": [4, 29], "k": 3, "logit_control": {"steer": RESIDUAL}}
    for _ in range(2):
        lenses = [
            httpx.post(f"{client.server.url}/v1/lens", json=body, timeout=60).json()
            for client in (ranks.client, alone)
        ]
        found, expected = (np.array(lens["top"]["logprobs"]) for lens in lenses)
        np.testing.assert_allclose(found, expected, atol=5e-3)


def test_a_grammar_holds(ranks: Ranks) -> None:
    body = {"model": MODEL, "prompt": PROMPT, "structured_outputs": {"choice": ["a river"]}}
    answer = ranks.client.http.post("/v1/completions", json=body)
    assert answer.is_success, answer.text
    assert answer.json()["choices"][0]["text"] == "a river"


def test_a_request_leaves_a_span(ranks: Ranks) -> None:
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    headers = {"traceparent": f"00-{trace}-{parent}-01", "x-request-id": "traced"}
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    control = {"bias": [{"text": " river", "add": 2.0}]}
    answer = ranks.client.http.post(
        "/v1/chat/completions",
        json={**body, "ignore_eos": True, "temperature": 0.5, "logit_control": control},
        headers=headers,
    )
    told = answer.json()
    span = ranks.collector.of_trace(trace)
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
