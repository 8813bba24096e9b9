"""Measured rows of logits: by Triton's kernels if there is Triton, row by row on a CPU.

Both fill the same columns of the statistics and return rows with the same methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch

from logit_processors.device_measure import measure_one, measure_two
from logit_processors.host_measure import measure_on_host
from logit_processors.kernels import has_kernels
from logit_processors.row_spec import COLUMN


class MeasuredRows(Protocol):
    """The log-probabilities of one stage's rows."""

    @property
    def values(self) -> torch.Tensor:
        """Return the log-probabilities, ``[rows, vocab]``."""

    def top_k(self, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the k largest, float32 ``[rows, k]``, and their token ids, int32."""

    def write(self, out: torch.Tensor) -> None:
        """Write all of them to ``[rows, vocab]`` of any float dtype."""


def measure_stages(
    stages: Mapping[str, torch.Tensor], sampled: torch.Tensor, statistics: torch.Tensor
) -> list[MeasuredRows]:
    """Fill the columns of the stages and return their rows.

    Args:
        stages: logits ``[rows, vocab]`` of any float dtype under "base", "controlled" or both,
            in that order; the same tensor where no program ran, and the same rows then.
        sampled: ``[rows]`` int64, the token that was drawn.
        statistics: ``[rows, 8]`` float32, see ``STATISTICS``.

    """
    by = measure_by_kernels if has_kernels(sampled.device) else measure_by_host
    if len(stages) == 2 and stages["base"] is stages["controlled"]:
        (rows,) = by({"base": stages["base"]}, sampled, statistics)
        for name in ("logprob", "rank", "entropy"):
            statistics[:, COLUMN[f"controlled_{name}"]] = statistics[:, COLUMN[f"base_{name}"]]
        return [rows, rows]
    return by(stages, sampled, statistics)


def measure_by_kernels(
    stages: Mapping[str, torch.Tensor], sampled: torch.Tensor, statistics: torch.Tensor
) -> list[MeasuredRows]:
    """Measure two different stages like :func:`measure_stages`, in one pass over the rows."""
    if len(stages) == 2:
        return list(measure_two(stages["base"], stages["controlled"], sampled, statistics))
    return [measure_one(logits, sampled, statistics, name) for name, logits in stages.items()]


def measure_by_host(
    stages: Mapping[str, torch.Tensor], sampled: torch.Tensor, statistics: torch.Tensor
) -> list[MeasuredRows]:
    """Measure two different stages like :func:`measure_stages`, row by row."""
    return [*measure_on_host(stages, sampled, statistics)]
