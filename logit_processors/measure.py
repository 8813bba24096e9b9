"""What a row of logits says: log-probabilities, top-k, entropy, KL divergence, ranks.

All over the full vocabulary, in nats, in float32. A logit of -inf is a token of
probability 0 and contributes 0 to every sum.
"""

from __future__ import annotations

import torch

# Low enough that exp() of it is 0, finite so that 0 times it is 0 and not NaN.
FLOOR = -1e30


def log_softmax(logits: torch.Tensor) -> torch.Tensor:
    """Normalise ``[rows, vocab]`` logits of any float dtype to float32 log-probabilities."""
    # Converting first: torch's mixed-dtype log_softmax is forty times slower on a CPU.
    return torch.log_softmax(logits.float(), dim=-1)


def entropy(logprobs: torch.Tensor) -> torch.Tensor:
    """Shannon entropy, nats: ``[rows, vocab]`` -> ``[rows]``."""
    finite = logprobs.clamp(min=FLOOR)
    return -(finite.exp().mul_(finite)).sum(dim=-1)


def kl_divergence(logprobs: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """KL(logprobs || reference), nats: two ``[rows, vocab]`` -> ``[rows]``, never below 0."""
    finite = logprobs.clamp(min=FLOOR)
    gain = finite - reference.clamp(min=FLOOR)
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
    values, token_ids = logprobs.topk(k, dim=-1)
    return values, token_ids.int()
