"""Steering and control on requests that also use a LoRA adapter, beside requests that do not."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from logit_processors.residual import ResidualSteer, Span
from service.embedded_model import embedded_model_dir
from tests.integration.client import Client, array
from tests.integration.parallel.adapter import ALPHA, RANK, make_adapter
from tests.integration.parallel.conftest import Several
from tests.integration.residual import SEEN, Reference, answer_of, control, put_all
from tests.integration.servers import MODEL

pytestmark = pytest.mark.xdist_group("parallel")

STEER = (
    ResidualSteer("one", 60.0, when=Span(-4)),
    ResidualSteer("everywhere", -1.5, layers=(3, 20)),
)
PROMPT = "The history of the city begins with"


@pytest.fixture(scope="module")
def client(two_apis: Several) -> Client:
    put_all(two_apis.client)
    return two_apis.client


@pytest.fixture(scope="module")
def references(reference: torch.nn.Module) -> dict[str, Reference]:
    """The model in transformers, as it is and with the adapter's products added to its weights."""
    merged = copy.deepcopy(reference)
    for module, (a, b) in make_adapter().items():
        weight = merged.get_submodule(module).weight
        assert isinstance(weight, torch.Tensor)
        weight.data += ALPHA / RANK * torch.from_numpy(b @ a)
    return {MODEL: Reference(reference), "tuned": Reference(merged)}


def test_each_row_of_a_batch_has_its_own_adapter_and_steering(
    client: Client, references: dict[str, Reference]
) -> None:
    prompt: list[int] = AutoTokenizer.from_pretrained(embedded_model_dir()).encode(PROMPT)
    asked: list[tuple[str, tuple[ResidualSteer, ...]]] = [
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
            references[model].check(answer, prompt, program)
        assert len({tuple(answer["logprobs"]) for answer in answers}) == len(asked)


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
