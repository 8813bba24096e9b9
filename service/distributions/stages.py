"""Kept rows as arrays: the values of each stage that go into an answer, in any encoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from logit_processors.row_spec import DENSE, RowSpec, TokenRow
from service.schemas.distribution import DistributionRequest


class StageArrays(NamedTuple):
    """One stage of a run of rows.

    ``token_ids``: int32 ``[rows, k]``, None for dense rows; ``logprobs``: ``[rows, k or
    vocab]``, of the dtype asked for. Where ``offsets`` (int32 ``[rows + 1]``) is not None, rows
    are ragged, both are flat and row i has the entries from ``offsets[i]`` to ``offsets[i+1]``.
    """

    token_ids: NDArray[np.int32] | None
    logprobs: NDArray[np.floating]
    offsets: NDArray[np.int32] | None = None


def stages_of(request: DistributionRequest, spec: RowSpec) -> list[str]:
    """Return the stages to send, in the order in which rows carry them."""
    return [stage for stage in spec.stages if stage in request.stages]


def statistics_of(rows: Sequence[TokenRow]) -> NDArray[np.float32]:
    """Return the rows' statistics, ``[rows, 8]``."""
    return stacked([row.statistics for row in rows])


def stage_arrays(
    request: DistributionRequest, spec: RowSpec, stage: str, rows: Sequence[TokenRow]
) -> StageArrays:
    """Return a stage's requested values; rows may hold more for other parts of the answer."""
    at = spec.stages.index(stage)
    logprobs = stacked([row.logprobs[at] for row in rows])
    token_ids = stacked([row.token_ids[at] for row in rows])
    if spec.top_k == DENSE and (request.kept != DENSE or request.top_p is not None):
        token_ids, logprobs = _sorted(logprobs, request.kept)
    elif request.kept != DENSE:
        token_ids, logprobs = token_ids[:, : request.kept], logprobs[:, : request.kept]
    wanted = np.dtype(request.dtype)
    if request.top_p is not None:
        lengths = nucleus_lengths(logprobs, request.top_p)
        inside = np.arange(logprobs.shape[1]) < lengths[:, None]
        offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
        return StageArrays(token_ids[inside], logprobs[inside].astype(wanted, copy=False), offsets)
    dense = request.kept == DENSE
    return StageArrays(None if dense else token_ids, logprobs.astype(wanted, copy=False))


def stacked(arrays: list[NDArray[Any]]) -> NDArray[Any]:
    """Return equal ``[n]`` arrays as ``[rows, n]``; a single one, as streams have, uncopied."""
    return np.stack(arrays) if len(arrays) > 1 else arrays[0][None]


def _sorted(
    logprobs: NDArray[np.floating], kept: int
) -> tuple[NDArray[np.int32], NDArray[np.floating]]:
    """Return the ids and values of dense ``[rows, vocab]`` rows, largest first."""
    order = np.argsort(-logprobs, axis=1, kind="stable")
    if kept != DENSE:
        order = order[:, :kept]
    return order.astype(np.int32), np.take_along_axis(logprobs, order, axis=1)


def nucleus_lengths(logprobs: NDArray[np.floating], top_p: float) -> NDArray[np.int64]:
    """Return how many of each row's entries reach a mass of ``top_p``, at least one.

    ``[rows, k]`` sorted, largest first -> ``[rows]``; all k if they do not reach it.
    """
    mass = np.cumsum(np.exp(logprobs.astype(np.float64)), axis=1)
    lengths: NDArray[np.int64] = np.minimum((mass < top_p).sum(axis=1) + 1, logprobs.shape[1])
    return lengths
