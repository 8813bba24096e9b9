"""Statistics of rows of logits on a CPU, row by row, so that a row stays in the core's cache.

With m the largest logit, s = sum exp(x - m) and t = sum (x - m) exp(x - m):

    log-softmax(x) = (x - m) - log s        entropy = log s - t / s
    KL(c || b) = sum exp(c - m_c) (c - b) / s_c - (m_c - m_b) - (log s_c - log s_b)

Only dense rows have their log-softmax written. Where the stages agree c - b is 0, so that equal
rows have a divergence of exactly 0. A row without any token left has NaN for all but its ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, isnan, log, nan

import numpy as np
import torch
from numpy.typing import NDArray

from logit_processors.measure import FLOOR
from logit_processors.row_spec import COLUMN

# Candidate groups of the top-k: 16 gives the least work from k = 20 to k = 1000.
_GROUPS = 16


@dataclass(frozen=True)
class HostRows:
    """Rows of one stage: ``values`` are logits, float32 ``[rows, vocab]``.

    ``norms`` are m and log s, float32 ``[rows, 2]``.
    """

    values: torch.Tensor
    norms: torch.Tensor

    def top_k(self, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the k largest log-probabilities, float32 ``[rows, k]``, and token ids, int32."""
        if k == 0 or self.values.shape[1] < 2 * _GROUPS * k:
            logits, token_ids = self.values.topk(k, dim=-1)
            return self._normed(logits), token_ids.int()
        logits, token_ids = _top_k_above_threshold(self.values.numpy(), k)
        return self._normed(logits), token_ids

    def write(self, out: torch.Tensor) -> None:
        """Write all log-probabilities to ``[rows, vocab]`` of any float dtype."""
        row = torch.empty_like(self.values[0])
        for at, logits in enumerate(self.values):
            torch.sub(logits, self.norms[at, 0], out=row)
            out[at] = row.sub_(self.norms[at, 1])

    def _normed(self, logits: torch.Tensor) -> torch.Tensor:
        """``[rows, n]`` -> ``[rows, n]``, in place and rounded as in a dense row."""
        return logits.sub_(self.norms[:, :1]).sub_(self.norms[:, 1:])


def measure_on_host(
    stages: Mapping[str, torch.Tensor], sampled: torch.Tensor, statistics: torch.Tensor
) -> list[HostRows]:
    """Fill the columns of the stages and return their rows.

    Args:
        stages: logits ``[rows, vocab]`` of any float dtype under "base", "controlled" or both,
            in that order.
        sampled: ``[rows]`` int64, the token that was drawn.
        statistics: ``[rows, 8]`` float32, see ``STATISTICS``.

    """
    logits = {name: values.float() for name, values in stages.items()}
    first = next(iter(logits.values()))
    passes = _RowPasses(first.shape[1])
    kept: dict[str, list[tuple[float, float]]] = {name: [] for name in logits}
    entropies: dict[str, list[float]] = {name: [] for name in logits}
    divergences: list[float] = []
    for at in range(len(first)):
        for name, values in logits.items():
            peak, log_mass, entropy = passes.sums(values[at])
            kept[name].append((peak, log_mass))
            entropies[name].append(entropy)
        if len(logits) == 2:
            norms = kept["base"][at], kept["controlled"][at]
            divergences.append(passes.divergence(first[at], logits["controlled"][at], *norms))
    rows = [HostRows(values, torch.tensor(kept[name])) for name, values in logits.items()]
    for name, stage in zip(logits, rows, strict=True):
        chosen = stage.values.gather(1, sampled.unsqueeze(1))
        statistics[:, COLUMN[f"{name}_rank"]] = _ranks(stage.values, chosen)
        statistics[:, COLUMN[f"{name}_logprob"]] = stage._normed(chosen)[:, 0]
        statistics[:, COLUMN[f"{name}_entropy"]] = torch.tensor(entropies[name])
    if divergences:
        statistics[:, COLUMN["kl"]] = torch.tensor(divergences)
    return rows


class _RowPasses:
    """Passes over one row at a time, through two buffers ``[vocab]``."""

    def __init__(self, vocab: int) -> None:
        self._shifted = torch.empty(vocab)
        self._mass = torch.empty(vocab)

    def sums(self, logits: torch.Tensor) -> tuple[float, float, float]:
        """Return m, log s and the entropy of ``[vocab]``, and keep exp(x - m)."""
        shifted, mass = self._shifted, self._mass
        peak = logits.amax().item()  # half of what max() takes
        torch.sub(logits, peak, out=shifted)
        torch.exp(shifted, out=mass)
        total = mass.sum().item()
        if isnan(total):
            return peak, nan, nan
        weighted = torch.dot(mass, shifted).item()
        if isnan(weighted):  # 0 times -inf
            weighted = torch.dot(mass, shifted.clamp_(min=FLOOR)).item()
        return peak, log(total), log(total) - weighted / total

    def divergence(
        self,
        base: torch.Tensor,
        controlled: torch.Tensor,
        base_norms: tuple[float, float],
        norms: tuple[float, float],
    ) -> float:
        """Return KL(controlled || base), nats, of the row that :meth:`sums` took last.

        Args:
            base: logits ``[vocab]``.
            controlled: logits ``[vocab]``.
            base_norms: m and log s of the one.
            norms: of the other.

        """
        (base_peak, base_log_mass), (peak, log_mass) = base_norms, norms
        if isnan(log_mass) or isnan(base_log_mass):
            return nan
        gain = torch.sub(controlled, base, out=self._shifted)
        weighted = torch.dot(self._mass, gain).item()
        if isnan(weighted):  # 0 times -inf, or times -inf less -inf
            gain.nan_to_num_(nan=0.0, neginf=0.0, posinf=torch.inf)
            weighted = torch.dot(self._mass, gain).item()
        mean = weighted / exp(log_mass)
        return max(0.0, mean - (peak - base_peak) - (log_mass - base_log_mass))


def _ranks(logits: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """``[rows, vocab]``, ``[rows, 1]`` -> float32 ``[rows]``: 1 and the tokens strictly above."""
    # numpy counts a boolean row eleven times as fast as torch sums it.
    pairs = zip(logits.numpy(), chosen.numpy(), strict=True)
    return torch.tensor([1.0 + np.count_nonzero(row > own) for row, own in pairs])


def _top_k_above_threshold(
    logits: NDArray[np.float32], k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the exact top k of ``[rows, vocab]`` with a threshold.

    At least k tokens reach the k-th largest of the group maxima, so the top k are among the tokens
    that reach it. These are usually few more than k, and only they are sorted.
    """
    rows, vocab = logits.shape
    values = np.empty((rows, k), np.float32)
    token_ids = np.empty((rows, k), np.int32)
    for row, source in enumerate(logits):
        maxima = source[: vocab - vocab % _GROUPS].reshape(_GROUPS, -1).max(axis=0)
        place = len(maxima) - k
        candidates = np.flatnonzero(source >= np.partition(maxima, place)[place])
        if len(candidates) < k:  # logits of NaN: nothing reaches any threshold
            candidates = np.arange(vocab)
        reached = source[candidates]
        order = np.argsort(-reached)[:k]
        values[row] = reached[order]
        token_ids[row] = candidates[order]
    return torch.from_numpy(values), torch.from_numpy(token_ids)
