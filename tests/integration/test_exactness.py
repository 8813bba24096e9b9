"""Distributions against Hugging Face transformers and against a naive re-computation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from logit_processors.vocabulary import Vocabulary
from tests.integration import expected
from tests.integration.client import Client, array

pytestmark = pytest.mark.xdist_group("v2")

BOTH = {"top_k": "all", "stages": ["base", "controlled"]}
PROMPTS = [
    "The capital of France is",
    "Once upon a time there was a",
    "The ocean is",
    "def fibonacci(n):",
]
HIDDEN = 576

# Sixteen requests that differ in every way; ``vector-…`` are put by the fixture below.
CONTROLS: list[dict[str, Any]] = [
    {},
    {"bias": [{"token_id": 284, "add": 3.0}]},
    {"bias": [{"token_id": 284, "add": 3.0}, {"token_id": 284, "add": -1.5}]},
    {"suppress": [{"token_id": 28}, {"token_id": 30}]},
    {"bias": [{"text": " the ocean", "add": 4.0}]},
    {"bias": [{"text": "THE", "add": 2.0, "ignore_case": True}]},
    {"suppress": [{"text": "e"}]},
    {"suppress": [{"text": " the "}, {"text": "\n"}]},
    {"suppress": [{"text": "AN", "ignore_case": True}]},
    {"steer": [{"vector": "vector-a", "strength": 2.0}]},
    {"steer": [{"vector": "vector-a", "strength": -1.0}, {"vector": "vector-b", "strength": 0.5}]},
    {"steer": [{"vector": "vector-b", "strength": 3.0, "when": {"from": 1, "until": 2}}]},
    {
        "bias": [{"text": " blue", "add": 5.0, "when": {"until": 2}}],
        "steer": [{"vector": "vector-a", "strength": 1.0}],
        "suppress": [{"text": "is"}, {"token_id": 253}],
    },
    {"bias": [{"token_id": 28, "add": 100.0}], "suppress": [{"token_id": 28}]},
    {"bias": [{"text": "aaa", "add": 6.0}], "suppress": [{"text": "aaaa"}]},
    {"bias": [{"text": "é", "add": 7.0}], "suppress": [{"text": "日本"}]},
]


@pytest.fixture(params=["v1", "v2"])
def client(request: pytest.FixtureRequest) -> Client:
    """Each of the two runners."""
    found: Client = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def scores(client: Client, reference: Any) -> dict[str, expected.Row]:
    """Two stored vectors, one of each space, and their standardised token scores."""
    generator = np.random.default_rng(7)
    direction, residual = generator.standard_normal((2, HIDDEN)).astype(np.float32)
    for name, tensors in {
        "vector-a": {"direction": direction},
        "vector-b": {"layer.3": direction, "layer.20": residual},
    }.items():
        body = safetensors.numpy.save(tensors)
        assert client.http.put(f"/v1/vectors/{name}", content=body).is_success
    unembedding = reference.lm_head.weight.detach().double().numpy()
    gain = reference.model.norm.weight.detach().double().numpy()
    found = {}
    for name, read in {"vector-a": direction, "vector-b": residual * gain}.items():
        raw = unembedding @ read
        found[name] = (raw - raw.mean()) / raw.std()
    return found


def test_base_distributions_equal_transformers(client: Client, reference: Any) -> None:
    for prompt in PROMPTS[:1]:
        choice = client.choice(
            prompt, max_tokens=3, distribution={"top_k": "all", "stages": ["base"]}
        )
        sequence = choice["prompt_token_ids"] + choice["token_ids"]
        with torch.no_grad():
            logits = reference(torch.tensor([sequence])).logits[0].double()
        wanted = torch.log_softmax(logits, dim=-1)[len(choice["prompt_token_ids"]) - 1 : -1].numpy()
        served = array(choice["distribution"]["base"]["logprobs"])
        assert served.shape == wanted.shape
        assert np.abs(served - wanted).max() <= 1e-3


def test_controlled_distributions_equal_a_naive_recomputation(
    client: Client, scores: dict[str, expected.Row], vocabulary: Vocabulary
) -> None:
    requests = [
        {
            "prompt": PROMPTS[at % len(PROMPTS)],
            "max_tokens": 3,
            "logit_control": control,
            "distribution": BOTH,
        }
        for at, control in enumerate(CONTROLS)
    ]
    for request, choice in zip(requests, client.together(requests), strict=True):
        distribution, token_ids = choice["distribution"], choice["token_ids"]
        base = array(distribution["base"]["logprobs"]).astype(np.float64)
        served = array(distribution["controlled"]["logprobs"])
        control: Any = request["logit_control"]
        for position in range(len(token_ids)):
            wanted = expected.controlled(
                base[position], control, token_ids[:position], vocabulary, scores
            )
            finite = np.isfinite(wanted)
            assert (np.isfinite(served[position]) == finite).all(), control
            assert np.abs(served[position][finite] - wanted[finite]).max() <= 1e-4, control


def test_statistics_equal_numpy(client: Client, scores: dict[str, expected.Row]) -> None:
    for control in (CONTROLS[0], CONTROLS[12]):
        choice = client.choice(
            PROMPTS[2],
            max_tokens=3,
            logit_control=control,
            distribution=BOTH,
            temperature=1,
            seed=3,
        )
        distribution, token_ids = choice["distribution"], choice["token_ids"]
        stages = {
            stage: array(distribution[stage]["logprobs"]).astype(np.float64)
            for stage in ("base", "controlled")
        }
        for stage, logprobs in stages.items():
            mass = np.exp(logprobs)
            assert np.abs(mass.sum(axis=1) - 1).max() <= 1e-4
            entropy = -np.where(mass > 0, mass * np.where(mass > 0, logprobs, 0), 0).sum(axis=1)
            assert np.abs(array(distribution[stage]["entropy"]) - entropy).max() <= 1e-4
            chosen = logprobs[np.arange(len(token_ids)), token_ids]
            ranks = (logprobs > chosen[:, None]).sum(axis=1) + 1
            sampled = distribution["sampled"]
            assert array(sampled[f"{stage}_rank"]).tolist() == ranks.tolist()
            assert np.abs(array(sampled[f"{stage}_logprob"]) - chosen).max() <= 1e-6
        mass = np.exp(stages["controlled"])
        with np.errstate(invalid="ignore"):
            gain = np.where(mass > 0, stages["controlled"] - stages["base"], 0)
        assert np.abs(array(distribution["kl"]) - (mass * gain).sum(axis=1)).max() <= 1e-4


@pytest.mark.alone
def test_top_k_and_nucleus_are_cut_from_the_full_row(client: Client) -> None:
    full = client.choice(PROMPTS[0], max_tokens=2, distribution={"top_k": "all"})["distribution"]
    dense = array(full["controlled"]["logprobs"])
    ordered = -np.sort(-dense, axis=1)
    top = client.choice(PROMPTS[0], max_tokens=2, distribution={"top_k": 50})["distribution"]
    served = array(top["controlled"]["logprobs"])
    assert np.abs(served - ordered[:, :50]).max() <= 1e-5
    ids = array(top["controlled"]["token_ids"])
    assert np.abs(np.take_along_axis(dense, ids, axis=1) - served).max() <= 1e-5
    ragged = client.choice(
        PROMPTS[0], max_tokens=2, distribution={"top_k": "all", "top_p": 0.9, "encoding": "json"}
    )["distribution"]["controlled"]
    for at, row in enumerate(ordered):
        mass = np.cumsum(np.exp(row.astype(np.float64)))
        length = int((mass < 0.9).sum()) + 1
        start, end = ragged["offsets"][at : at + 2]
        assert end - start == length
        assert np.abs(np.array(ragged["logprobs"][start:end]) - row[:length]).max() <= 1e-5


def test_half_precision_is_the_rounded_row(client: Client) -> None:
    whole, half = (
        array(
            client.choice(PROMPTS[0], max_tokens=1, distribution={"top_k": "all", "dtype": dtype})[
                "distribution"
            ]["controlled"]["logprobs"]
        )
        for dtype in ("float32", "float16")
    )
    assert half.dtype == np.float16
    assert np.abs(whole - half.astype(np.float32)).max() <= 0.02


def test_both_runners_give_the_same_rows(v1: Client, v2: Client) -> None:
    for control in (CONTROLS[7], CONTROLS[14]):
        request = {"max_tokens": 3, "logit_control": control, "distribution": BOTH}
        first, second = (client.choice(PROMPTS[1], **request) for client in (v1, v2))
        assert first["token_ids"] == second["token_ids"]
        for stage in ("base", "controlled"):
            rows = [array(c["distribution"][stage]["logprobs"]) for c in (first, second)]
            assert (np.isneginf(rows[0]) == np.isneginf(rows[1])).all()
            finite = np.isfinite(rows[0])
            assert np.abs(rows[0][finite] - rows[1][finite]).max() <= 1e-3
