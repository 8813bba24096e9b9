"""The logit lens: the unembedding applied to the residual stream after each layer."""

from __future__ import annotations

from typing import Any

import torch

from logit_processors.row_spec import COLUMN, STATISTICS
from service.engine.adapters import base_logits
from service.engine.final_norm import normed
from service.engine.measured import measure_stages

_COLUMNS = {
    "entropy": "base_entropy",
    "kl": "kl",
    "next_logprobs": "base_logprob",
    "next_ranks": "base_rank",
}
"""Columns of the statistics for the lens: the last layer takes the controlled stage's place."""


@torch.inference_mode()
def read_stream(
    model: Any, states: torch.Tensor, following: torch.Tensor, k: int, dtype: torch.dtype
) -> dict[str, torch.Tensor] | None:
    """Read states through the final norm and the unembedding, without any adapter.

    Args:
        model: vLLM's.
        states: ``[layers, positions, hidden]`` float32; the last layer's are the last.
        following: ``[positions]`` int64, the token after each position; below 0 for none.
        k: number of most likely tokens to return.
        dtype: the model's dtype.

    Returns:
        ``[layers, positions, k]`` int32 ``token_ids`` and float32 ``logprobs``, and
        ``[layers, positions]`` float32 ``entropy``, ``kl`` (of the last layer from each),
        ``next_logprobs`` and ``next_ranks``, in nats. None on a rank that has no logits.

    """
    layers, positions, hidden = states.shape
    rows = normed(model, states.reshape(-1, hidden).to(dtype))
    logits = base_logits(model, rows)
    if logits is None:
        return None
    chosen = following.clamp(min=0).repeat(layers)
    statistics = torch.empty(len(logits), len(STATISTICS), device=logits.device)
    stages = {"base": logits, "controlled": logits[-positions:].repeat(layers, 1)}
    read, _ = measure_stages(stages, chosen, statistics)
    values, token_ids = read.top_k(k)
    flat = {"token_ids": token_ids, "logprobs": values}
    flat |= {name: statistics[:, COLUMN[column]] for name, column in _COLUMNS.items()}
    return {name: each.reshape(layers, positions, *each.shape[1:]) for name, each in flat.items()}
