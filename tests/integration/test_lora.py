"""Steering and control on requests that also use a LoRA adapter, beside requests that do not."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer

from logit_processors.residual import ResidualSteer, Span
from service.embedded_model import embedded_model_dir
from tests.integration.client import Client, array
from tests.integration.servers import MODEL, serving
from tests.integration.test_residual import LAYERS, Reference
from tests.integration.test_residual_requests import SEEN, control, put_all, told

RANK, ALPHA = 4, 8
MODULES = {"self_attn.q_proj": (576, 576), "mlp.down_proj": (1536, 576)}
"""Inputs and outputs of each adapted module."""
STEER = (
    ResidualSteer("one", 60.0, when=Span(-4)),
    ResidualSteer("everywhere", -1.5, layers=(3, 20)),
)
PROMPT = "The history of the city begins with"

Adapter = dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
"""``A`` ``[rank, inputs]`` and ``B`` ``[outputs, rank]`` by the path of a module."""


@pytest.fixture(scope="module")
def adapter() -> Adapter:
    rng = np.random.default_rng(3)
    return {
        f"model.layers.{layer}.{module}": (
            rng.normal(0, inputs**-0.5, (RANK, inputs)).astype(np.float32),
            rng.normal(0, 0.1, (outputs, RANK)).astype(np.float32),
        )
        for layer in LAYERS
        for module, (inputs, outputs) in MODULES.items()
    }


@pytest.fixture(scope="module")
def server(adapter: Adapter, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("lora")
    save(adapter, folder / "tuned")
    flags = (
        *("--max-model-len", "256", "--max-num-seqs", "8", "--block-size", "32"),
        *("--enable-lora", "--max-lora-rank", "8", "--lora-modules", f"tuned={folder / 'tuned'}"),
        # On a CPU vLLM runs rows without an adapter through the last slot: let it be empty.
        *("--max-loras", "2"),
    )
    with serving(folder, flags) as running:
        client = Client(running)
        put_all(client)
        yield client
        client.http.close()


def save(adapter: Adapter, folder: Path) -> None:
    """Write an adapter as the peft package would."""
    folder.mkdir()
    tensors = {}
    for module, (a, b) in adapter.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = a
        tensors[f"base_model.model.{module}.lora_B.weight"] = b
    safetensors.numpy.save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "r": RANK,
        "lora_alpha": ALPHA,
        "target_modules": [module.rpartition(".")[2] for module in MODULES],
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))


@pytest.fixture(scope="module")
def references(reference: torch.nn.Module, adapter: Adapter) -> dict[str, Reference]:
    """The model in transformers, as it is and with the adapter's products added to its weights."""
    merged = copy.deepcopy(reference)
    for module, (a, b) in adapter.items():
        weight = merged.get_submodule(module).weight
        assert isinstance(weight, torch.Tensor)
        weight.data += ALPHA / RANK * torch.from_numpy(b @ a)
    return {MODEL: Reference(reference), "tuned": Reference(merged)}


def test_each_row_of_a_batch_has_its_own_adapter_and_steering(
    server: Client, references: dict[str, Reference]
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
            "max_tokens": 16,
            "logit_control": control(program),
            "distribution": SEEN,
        }
        for model, program in asked
    ]
    # Once computed, and once out of the prefix cache.
    for _ in range(2):
        answers = [told(choice) for choice in server.together(batch)]
        for answer, (model, program) in zip(answers, asked, strict=True):
            references[model].check(answer, prompt, program)
        assert len({tuple(answer["tokens"]) for answer in answers}) == len(asked)


def test_logit_control_comes_after_adapter_and_steering(server: Client) -> None:
    both = {**control(STEER), "bias": [{"token_id": 17, "add": 3.0}], "suppress": [{"text": "e"}]}
    seen = {"top_k": "all", "stages": ["base", "controlled"]}
    fields = {"model": "tuned", "max_tokens": 1, "distribution": seen}
    alone = server.choice(PROMPT, logit_control=control(STEER), **fields)["distribution"]
    mixed = server.choice(PROMPT, logit_control=both, **fields)["distribution"]
    base = array(mixed["base"]["logprobs"])[0]
    np.testing.assert_allclose(base, array(alone["base"]["logprobs"])[0], atol=1e-3)
    change = array(mixed["controlled"]["logprobs"])[0] - base
    assert np.isneginf(change).any()
    free = np.flatnonzero(np.isfinite(change))
    np.testing.assert_allclose(change[17] - change[free[free != 17]], 3.0, atol=1e-3)
