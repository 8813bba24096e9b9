"""A LoRA adapter of random weights, written as the peft package would."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

RANK, ALPHA, LAYERS = 4, 8, 30
MODULES = {"self_attn.q_proj": (576, 576), "mlp.down_proj": (1536, 576)}
"""Inputs and outputs of each adapted module of a layer."""
UNEMBEDDING = "lm_head", (576, 49_152)
"""The same of the end of the model."""

Adapter = dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
"""``A`` ``[rank, inputs]`` and ``B`` ``[outputs, rank]`` by the path of a module."""


def make_adapter() -> Adapter:
    """Return the same adapter each time."""
    rng = np.random.default_rng(3)
    sizes = [
        (f"model.layers.{layer}.{module}", size)
        for layer in range(LAYERS)
        for module, size in MODULES.items()
    ]
    return {
        module: (
            rng.normal(0, inputs**-0.5, (RANK, inputs)).astype(np.float32),
            rng.normal(0, 0.1, (outputs, RANK)).astype(np.float32),
        )
        for module, (inputs, outputs) in [*sizes, UNEMBEDDING]
    }


def save(adapter: Adapter, folder: Path) -> None:
    """Write an adapter into a new folder."""
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
        "target_modules": [module.rpartition(".")[2] for module in (*MODULES, UNEMBEDDING[0])],
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
