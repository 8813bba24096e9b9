"""The layout of a step's tokens, for both of vLLM's runners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class StepLayout:
    """One step's requests in the order of their tokens.

    ``starts`` ``[requests + 1]`` and ``first`` ``[requests]`` (the index of a request's first
    token in the request) are on the host. ``query_start_loc`` ``[requests + 1]`` int32 and
    ``positions`` ``[tokens]`` are on the device; with drafted tokens only these are exact.
    """

    request_ids: Sequence[str]
    starts: NDArray[np.integer[Any]]
    first: NDArray[np.integer[Any]]
    query_start_loc: torch.Tensor
    positions: torch.Tensor

    @classmethod
    def of_v1(cls, runner: Any) -> StepLayout:
        """Read the step that the V1 runner is about to run."""
        batch = runner.input_batch
        count = batch.num_reqs
        return cls(
            batch.req_ids[:count],
            runner.query_start_loc.np[: count + 1],
            batch.num_computed_tokens_cpu[:count],
            runner.query_start_loc.gpu[: count + 1],
            runner.positions,
        )

    @classmethod
    def of_v2(cls, batch: Any) -> StepLayout:
        """Read the V2 runner's input batch."""
        count = batch.num_reqs
        return cls(
            batch.req_ids[:count],
            batch.query_start_loc_np[: count + 1],
            batch.num_computed_tokens_np[:count],
            batch.query_start_loc[: count + 1],
            batch.positions,
        )
