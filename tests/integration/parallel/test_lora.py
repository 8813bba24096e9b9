"""Control and rows of requests that use a LoRA adapter, beside requests that do not."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from logit_processors.controls.steer import SteerEntry
from tests.entries import span, steer_residual
from tests.integration.client import Client, array
from tests.integration.parallel.adapter import ALPHA, LAYERS, RANK, make_adapter
from tests.integration.parallel.conftest import Several
from tests.integration.residual import SEEN, Reference, answer_of, control, put_all
from tests.integration.servers import MODEL
from tests.integration.test_prompt_rows import BOTH, check, expected, tokens_of

pytestmark = pytest.mark.xdist_group("parallel")

STEER = (
    steer_residual("one", 60.0, when=span(-4)),
    steer_residual("everywhere", -1.5, layers=(3, 20)),
)
PROMPT = "The history of the city begins with"


@pytest.fixture(scope="module")
def client(two_apis: Several) -> Client:
    put_all(two_apis.client)
    return two_apis.client


@pytest.fixture(scope="module")
def models(reference: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """The model in transformers, as it is and with the adapter's products added to its weights."""
    merged = copy.deepcopy(reference)
    for path, (a, b) in make_adapter().items():
        module = merged.get_submodule(path)
        assert isinstance(module.weight, torch.Tensor)
        # A parameter of its own: the unembedding shares that of the embedding.
        module.weight = torch.nn.Parameter(module.weight + ALPHA / RANK * torch.from_numpy(b @ a))
    return {MODEL: reference, "tuned": merged}


def test_each_row_of_a_batch_has_its_own_adapter_and_steering(
    client: Client, models: dict[str, torch.nn.Module]
) -> None:
    prompt = tokens_of(PROMPT)
    asked: list[tuple[str, tuple[SteerEntry, ...]]] = [
        ("tuned", STEER),
        (MODEL, ()),
        ("tuned", ()),
        (MODEL, STEER),
    ]
    batch: list[dict[str, Any]] = [
        {
            "prompt": prompt,
            "model": model,
            "max_tokens": 8,
            "logit_control": control(program),
            "distribution": SEEN,
        }
        for model, program in asked
    ]
    # Once computed, and once out of the prefix cache.
    for _ in range(2):
        answers = [answer_of(choice) for choice in client.together(batch)]
        for answer, (model, program) in zip(answers, asked, strict=True):
            Reference(models[model]).check(answer, prompt, program)
        assert len({tuple(answer["logprobs"]) for answer in answers}) == len(asked)


def test_each_row_of_a_prompt_is_of_its_adapter(
    client: Client, models: dict[str, torch.nn.Module]
) -> None:
    wanted = {"top_k": "all", "stages": BOTH, "prompt": True}
    asked = [("tuned", PROMPT), (MODEL, f"{PROMPT} a river"), ("tuned", "The"), (MODEL, "One, two")]
    batch: list[dict[str, Any]] = [
        {"prompt": text, "model": model, "max_tokens": 2, "distribution": wanted}
        for model, text in asked
    ]
    for choice, (model, text) in zip(client.together(batch), asked, strict=True):
        if len(token_ids := tokens_of(text)) > 1:
            check(choice["distribution"]["prompt"], models[model], token_ids)


def test_scores_and_the_lens_are_those_of_the_model_without_adapter(
    client: Client, models: dict[str, torch.nn.Module]
) -> None:
    client.choice(PROMPT, model="tuned", max_tokens=1)
    token_ids = tokens_of(PROMPT)
    logprobs = expected(models[MODEL], token_ids)
    own = logprobs[np.arange(len(logprobs)), token_ids[1:]]
    scored = {"prompt": token_ids[:2], "continuations": [token_ids[2:], token_ids[2:5]]}
    answer = client.http.post("/v1/score", json=scored)
    assert answer.is_success, answer.text
    for each, count in zip(answer.json()["continuations"], (len(own) - 1, 3), strict=True):
        np.testing.assert_allclose(each["base"]["logprobs"], own[1 : 1 + count], atol=2e-3)
    seen = {"prompt": token_ids, "layers": [LAYERS - 1], "k": 1, "encoding": "json"}
    lens = client.http.post("/v1/lens", json=seen)
    assert lens.is_success, lens.text
    np.testing.assert_allclose(lens.json()["next"]["logprobs"][0][:-1], own, atol=2e-3)


def test_logit_control_comes_after_adapter_and_steering(client: Client) -> None:
    both = {**control(STEER), "bias": [{"token_id": 17, "add": 3.0}], "suppress": [{"text": "e"}]}
    seen = {"top_k": "all", "stages": ["base", "controlled"]}
    fields = {"model": "tuned", "max_tokens": 1, "distribution": seen}
    alone = client.choice(PROMPT, logit_control=control(STEER), **fields)["distribution"]
    mixed = client.choice(PROMPT, logit_control=both, **fields)["distribution"]
    base = array(mixed["base"]["logprobs"])[0]
    np.testing.assert_allclose(base, array(alone["base"]["logprobs"])[0], atol=1e-3)
    change = array(mixed["controlled"]["logprobs"])[0] - base
    assert np.isneginf(change).any()
    free = np.flatnonzero(np.isfinite(change))
    np.testing.assert_allclose(change[17] - change[free[free != 17]], 3.0, atol=1e-3)
