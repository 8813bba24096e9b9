"""Log-probabilities of rows of logits over the full vocabulary, in nats, in float32."""

from __future__ import annotations

import torch

FLOOR = -1e30
"""Replaces -inf: so low that its exp() is 0, but finite, so that 0 times it is 0 and not NaN."""


def log_softmax(logits: torch.Tensor) -> torch.Tensor:
    """Normalise ``[rows, vocab]`` logits of any float dtype to float32 log-probabilities."""
    # Converting first: torch's mixed-dtype log_softmax is forty times slower on a CPU.
    return torch.log_softmax(logits.float(), dim=-1)


def top_k(logprobs: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the k largest of every row and their token ids, largest first.

    ``[rows, vocab]`` -> float32 ``[rows, k]``, int32 ``[rows, k]``.
    """
    values, token_ids = logprobs.topk(k, dim=-1)
    return values, token_ids.int()
