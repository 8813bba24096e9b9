"""Rows of logits measured with torch's operations: what the server's ways are compared with.

The tests compare values, ``loadtests.kernels`` times. A logit of -inf is a token of probability 0
and contributes 0 to every sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from logit_processors import measure
from logit_processors.row_spec import COLUMN
from service.engine.measured import MeasuredRows


def entropy(logprobs: torch.Tensor) -> torch.Tensor:
    """Shannon entropy, nats: ``[rows, vocab]`` -> ``[rows]``."""
    finite = logprobs.clamp(min=measure.FLOOR)
    return -(finite.exp().mul_(finite)).sum(dim=-1)


def kl_divergence(logprobs: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """KL(logprobs || reference), nats: two ``[rows, vocab]`` -> ``[rows]``, never below 0."""
    finite = logprobs.clamp(min=measure.FLOOR)
    gain = finite - reference.clamp(min=measure.FLOOR)
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


def measure_by_operations(
    stages: Mapping[str, torch.Tensor], sampled: torch.Tensor, statistics: torch.Tensor
) -> list[MeasuredRows]:
    """Fill the columns of different stages and return their rows; see ``measure_stages``."""
    logprobs = {name: measure.log_softmax(logits) for name, logits in stages.items()}
    for name, values in logprobs.items():
        statistics[:, COLUMN[f"{name}_logprob"]] = gather(values, sampled)
        statistics[:, COLUMN[f"{name}_rank"]] = ranks(values, sampled).float()
        statistics[:, COLUMN[f"{name}_entropy"]] = entropy(values)
    if len(logprobs) == 2:
        kl = kl_divergence(logprobs["controlled"], logprobs["base"])
        statistics[:, COLUMN["kl"]] = kl
    return [_LogprobRows(values) for values in logprobs.values()]


@dataclass(frozen=True)
class _LogprobRows:
    """Log-probabilities that are all there, ``[rows, vocab]`` float32."""

    values: torch.Tensor

    def top_k(self, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        return measure.top_k(self.values, k)

    def write(self, out: torch.Tensor) -> None:
        out.copy_(self.values)
