"""What a row of logits says: log-probabilities, top-k, entropy, KL divergence, ranks.

All over the full vocabulary, in nats, in float32. A logit of -inf is a token of
probability 0 and contributes 0 to every sum.
"""

from __future__ import annotations

import numpy as np
import torch

# Low enough that exp() of it is 0, finite so that 0 times it is 0 and not NaN.
_FLOOR = -1e30
# Candidate groups of the CPU's top-k: 8 gives the least work from k = 20 to k = 1000.
_GROUPS = 8


def log_softmax(logits: torch.Tensor) -> torch.Tensor:
    """Normalise ``[rows, vocab]`` logits of any float dtype to float32 log-probabilities."""
    # Converting first: torch's mixed-dtype log_softmax is forty times slower on a CPU.
    return torch.log_softmax(logits.float(), dim=-1)


def entropy(logprobs: torch.Tensor) -> torch.Tensor:
    """Shannon entropy, nats: ``[rows, vocab]`` -> ``[rows]``."""
    finite = logprobs.clamp(min=_FLOOR)
    return -(finite.exp().mul_(finite)).sum(dim=-1)


def kl_divergence(logprobs: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """KL(logprobs || reference), nats: two ``[rows, vocab]`` -> ``[rows]``, never below 0."""
    finite = logprobs.clamp(min=_FLOOR)
    gain = finite - reference.clamp(min=_FLOOR)
    return finite.exp().mul_(gain).sum(dim=-1).clamp_(min=0.0)


def gather(logprobs: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
    """Pick one token per row: ``[rows, vocab]``, ``[rows]`` int64 -> ``[rows]``."""
    return logprobs.gather(1, token_ids.unsqueeze(1)).squeeze(1)


def ranks(logprobs: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
    """Rank of one token per row, from 1: one more than the tokens strictly above it.

    ``[rows, vocab]``, ``[rows]`` int64 -> ``[rows]`` int64. Tied tokens share the best rank.
    """
    chosen = logprobs.gather(1, token_ids.unsqueeze(1))
    return (logprobs > chosen).sum(dim=-1) + 1


def top_k(logprobs: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the k largest of every row and their token ids, largest first.

    ``[rows, vocab]`` -> float32 ``[rows, k]``, int32 ``[rows, k]``.
    """
    vocab = logprobs.shape[1]
    if k == 0 or logprobs.device.type != "cpu" or vocab < 4 * _GROUPS * k:
        values, token_ids = logprobs.topk(k, dim=-1)
        return values, token_ids.int()
    return _top_k_above_threshold(logprobs, k)


def _top_k_above_threshold(logprobs: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Exact top-k on a CPU by way of a threshold, in half the time of ``topk``.

    The k-th largest of the group maxima is a value that at least k tokens reach, so the
    top k are among the tokens that reach it: usually few more than k, which are sorted.
    """
    rows, vocab = logprobs.shape
    grouped = logprobs[:, : vocab - vocab % _GROUPS].unflatten(1, (_GROUPS, -1))
    maxima = grouped.amax(dim=1)
    thresholds = maxima.topk(k, dim=-1, sorted=False).values.amin(dim=-1).tolist()
    source = logprobs.numpy()
    values = np.empty((rows, k), np.float32)
    token_ids = np.empty((rows, k), np.int32)
    for row, threshold in enumerate(thresholds):
        candidates = np.flatnonzero(source[row] >= threshold)
        if len(candidates) < k:  # a row of NaN: there was no token left to normalise over
            candidates = np.arange(vocab)
        reached = source[row][candidates]
        order = np.argsort(-reached)[:k]
        values[row] = reached[order]
        token_ids[row] = candidates[order]
    return torch.from_numpy(values), torch.from_numpy(token_ids)
