"""Small random models of real architectures, in transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.nn import ModuleList

from logit_processors.controls.steer import SteerEntry
from tests.integration.offline import vector

LAYERS, SIZE = 4, 64
COMMON = {
    "vocab_size": 512,
    "hidden_size": SIZE,
    "intermediate_size": 128,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
HEADS = {"head_dim": 32}
WINDOWED = {**HEADS, "sliding_window": 64, "query_pre_attn_scalar": 32}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", COMMON | HEADS),
    "mistral": ("MistralConfig", COMMON | HEADS),
    "qwen2": ("Qwen2Config", COMMON),
    "qwen3": ("Qwen3Config", COMMON | HEADS),
    "qwen3 with experts": ("Qwen3MoeConfig", COMMON | HEADS | EXPERTS),
    "gemma2": ("Gemma2Config", COMMON | WINDOWED),
    "gemma3": ("Gemma3TextConfig", COMMON | WINDOWED),
    "gpt2": ("GPT2Config", {"vocab_size": 512, "n_embd": SIZE, "n_layer": LAYERS, "n_head": 2}),
    "pythia": ("GPTNeoXConfig", COMMON),
    "whole stream and a remainder": ("CohereConfig", COMMON),
}
UNSUPPORTED = {
    **{"vocab_size": 512, "vocab_size_per_layer_input": 512, "hidden_size": SIZE},
    **{"hidden_size_per_layer_input": 16, "intermediate_size": [128, 128]},
    **{"activation_sparsity_pattern": [0.0, 0.0], "num_hidden_layers": 2},
    **{"layer_types": ["sliding_attention", "full_attention"], "num_attention_heads": 2},
    **{"num_key_value_heads": 2, "num_kv_shared_layers": 0, "head_dim": 32, "laurel_rank": 8},
    **{"sliding_window": 64, "max_position_embeddings": 128},
}
"""Gemma 3n, whose decoder layers hand on four streams, not one."""
PROMPT = list(range(5, 21))


def make_model(family: str, folder: Path) -> Any:
    """Save a random model of a family and return it."""
    name, arguments = FAMILIES[family]
    torch.manual_seed(0)
    config = getattr(transformers, name)(**arguments)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.08)
        else:  # a bias, or a norm's gain
            parameter.data.add_(torch.randn_like(parameter), alpha=0.2)
    model.save_pretrained(folder)
    return model


def final_norm(model: Any) -> Any:
    """Return the norm before the unembedding, which is the last one that a model makes."""
    return [
        module
        for name, module in model.named_modules()
        if name.split(".")[-1] in ("norm", "ln_f", "final_layer_norm")
    ][-1]


def forward(
    model: Any, tokens: list[int], steer: tuple[SteerEntry, ...]
) -> tuple[torch.Tensor, Any]:
    """Return log-probabilities ``[tokens, vocab]`` and streams ``[layers, tokens, hidden]``."""
    positions = torch.arange(len(tokens)) + 1 - len(PROMPT)
    streams = []

    def hook(number: int) -> Any:
        def add(_module: Any, _arguments: Any, output: Any) -> Any:
            stream = output[0] if isinstance(output, tuple) else output
            for entry in steer:
                start, stop = entry.bounds
                if entry.layers is None or number in entry.layers:
                    inside = (positions >= start) & (positions < stop)
                    value = torch.from_numpy(vector(entry.vector, [number], SIZE)[0])
                    stream = stream + inside[None, :, None] * entry.strength * value
            streams.append(stream[0].numpy())
            return (stream, *output[1:]) if isinstance(output, tuple) else stream

        return add

    (layers,) = (m for m in model.modules() if isinstance(m, ModuleList) and len(m) == LAYERS)
    handles = [layer.register_forward_hook(hook(n)) for n, layer in enumerate(layers)]
    with torch.no_grad():
        logits = model(torch.tensor([tokens]), use_cache=False).logits[0]
    for handle in handles:
        handle.remove()
    return logits.log_softmax(-1), np.stack(streams)
