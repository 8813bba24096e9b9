"""The inverse covariance of a matrix's rows, computed once and in parts.

For a large unembedding it takes seconds, and no step may wait so long. The products of the rows
are summed in parts between steps, and factored in a thread.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import torch

PART = 2048
"""Rows of the matrix in one part."""
_RIDGE = 0.01  # of the mean variance: keeps the solution finite where the rows have none


@dataclass
class RowCovariance:
    """Mean μ and covariance Σ of the rows of a matrix, which several ranks may share.

    Args:
        rows: this rank's, ``[rows, hidden]``, any float dtype.
        parts: how often to call :meth:`advance` until all ranks have summed theirs.
        total: number of rows on all ranks.
        summed: returns the sum of a tensor over all ranks.

    """

    rows: torch.Tensor
    parts: int
    total: int
    summed: Callable[[torch.Tensor], torch.Tensor]
    _done: int = 0
    _sums: torch.Tensor | None = None
    _factored: Future[tuple[torch.Tensor, torch.Tensor]] | None = None
    _thread: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="covariance")
    )

    def advance(self) -> bool:
        """Do the next part and return True once all are done; all ranks call it together."""
        if self._factored is not None:
            return self._factored.done()
        size = self.rows.shape[1]
        if self._sums is None:
            self._sums = torch.zeros(size, size + 1, device=self.rows.device)
        part = self.rows[self._done * PART : (self._done + 1) * PART].float()
        self._sums[:, :size].addmm_(part.T, part)
        self._sums[:, size] += part.sum(dim=0)
        self._done += 1
        if self._done == self.parts:
            sums = self.summed(self._sums).cpu()
            self._sums = None
            self._factored = self._thread.submit(_factor, sums, self.total)
        return False

    def whitened(self, mean: torch.Tensor) -> torch.Tensor:
        """Return Σ⁻¹(m - μ) for a mean m of some rows, both ``[hidden]``, in float64.

        Σ with one per cent of the mean variance added. Waits for the work to be done.
        """
        assert self._factored is not None, "all parts have been summed"
        factor, centre = self._factored.result()
        centred = (mean.double().cpu() - centre).unsqueeze(1)
        return torch.cholesky_solve(centred, factor).squeeze(1)


def _factor(sums: torch.Tensor, total: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the Cholesky factor of Σ, ``[hidden, hidden]``, and μ, ``[hidden]``, float64.

    ``sums``: ``[hidden, hidden + 1]``, the products of the rows and the rows.
    """
    moments = sums.double() / total
    mean, covariance = moments[:, -1], moments[:, :-1]
    covariance -= torch.outer(mean, mean)
    covariance.diagonal().add_(_RIDGE * covariance.diagonal().mean())
    return torch.linalg.cholesky(covariance), mean
