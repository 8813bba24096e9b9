"""Kept rows on their way from the sampler to the API process.

They take the place of vLLM's own logprobs, with the interfaces of its ``LogprobsTensors`` and
``LogprobsLists``. Each request's rows have their own width, so that a wide request does not widen
another's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from vllm.v1.outputs import LogprobsLists

from logit_processors.row_spec import ALIVE, COLUMN


@dataclass
class RowGroup:
    """Rows of equal shape. ``requests`` ``[rows]`` holds their requests' indices in the batch.

    A request has several rows if tokens were drafted; they are contiguous.

    ``token_ids``: int32 ``[rows, stages, k]`` (k = 0 for dense rows); ``logprobs``: float32
    or float16 ``[rows, stages, k or vocab]``; ``statistics``: float32 ``[rows, 8]``. For the
    engine's own format: ``[rows, 1 + k]`` twice and int64 ranks ``[rows]``.
    """

    requests: NDArray[np.int64]
    token_ids: torch.Tensor
    logprobs: torch.Tensor
    statistics: torch.Tensor

    def to_cpu(self) -> RowGroup:
        """Start copying to the host."""
        return RowGroup(
            self.requests,
            self.token_ids.to("cpu", non_blocking=True),
            self.logprobs.to("cpu", non_blocking=True),
            self.statistics.to("cpu", non_blocking=True),
        )


Arrays = tuple[NDArray[np.int32], NDArray[np.floating], NDArray[np.floating]]


class HostRows:
    """A step's rows as numpy, with the interface of vLLM's ``LogprobsLists``."""

    def __init__(self, groups: list[RowGroup]) -> None:
        self._groups: list[Arrays] = [
            (g.token_ids.cpu().numpy(), g.logprobs.cpu().numpy(), g.statistics.cpu().numpy())
            for g in groups
        ]
        self._says_nothing = [
            _says_nothing(logprobs, statistics) for _, logprobs, statistics in self._groups
        ]
        self._first: dict[int, tuple[int, int]] = {}
        for group, g in enumerate(groups):
            requests, places = np.unique(g.requests, return_index=True)
            for request, at in zip(requests.tolist(), places.tolist(), strict=True):
                self._first[request] = group, at

    def slice_request(self, req_idx: int, num_positions: int) -> LogprobsLists | None:
        """Return the rows of the tokens that a request got in this step.

        With drafted tokens there are more rows than tokens: the rest belong to rejected drafts.
        Rows that only report success are dropped, as a row costs more than its token: the result
        is then None.
        """
        group, at = self._first[req_idx]
        if self._says_nothing[group]:
            return None
        token_ids, logprobs, statistics = self._groups[group]
        end = at + num_positions
        return LogprobsLists(token_ids[at:end], logprobs[at:end], statistics[at:end])


def _says_nothing(logprobs: NDArray[np.floating], statistics: NDArray[np.floating]) -> bool:
    """Say whether rows measure no stage and have no failure."""
    return logprobs.shape[1] == 0 and bool((statistics[:, COLUMN["alive"]] == ALIVE).all())


@dataclass
class StepRows:
    """A step's rows on the device, with the interface of vLLM's ``LogprobsTensors``."""

    groups: list[RowGroup]

    def to_cpu_nonblocking(self) -> Self:
        """Start copying everything to the host."""
        return type(self)([group.to_cpu() for group in self.groups])

    def tolists(self) -> HostRows:
        """Return the rows as numpy; started copies must have ended."""
        return HostRows(self.groups)
