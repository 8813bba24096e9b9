"""The ``distribution`` object of an answer, from a run of kept rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logit_processors.row_spec import DENSE, STATISTICS, RowSpec, TokenRow
from service.distributions.tensors import ENCODERS, Encoder
from service.schemas.distribution import DistributionRequest

_COLUMN = {name: at for at, name in enumerate(STATISTICS)}


def encode_distribution(
    request: DistributionRequest,
    spec: RowSpec,
    vocab_size: int,
    token_ids: Sequence[int],
    rows: Sequence[TokenRow],
) -> dict[str, Any]:
    """Return the object; rows may hold more than was asked for, if the answer needed it.

    Args:
        request: what the client wants to see.
        spec: what the rows hold.
        vocab_size: number of logits.
        token_ids: the tokens generated.
        rows: a row for each of them.

    """
    encode = ENCODERS[request.encoding]
    statistics = stacked([row.statistics for row in rows])
    stages = [stage for stage in spec.stages if stage in request.stages]
    sampled: dict[str, Any] = {"token_id": encode(np.array(token_ids, np.int32))}
    for stage in stages:
        sampled[f"{stage}_logprob"] = encode(statistics[:, _COLUMN[f"{stage}_logprob"]])
    for stage in stages:
        ranks = statistics[:, _COLUMN[f"{stage}_rank"]].astype(np.int32)
        sampled[f"{stage}_rank"] = encode(ranks)
    answer: dict[str, Any] = {
        "positions": len(rows),
        "top_k": vocab_size if request.top_k == "all" else request.top_k,
        "vocab_size": vocab_size,
        "sampled": sampled,
    }
    for stage in stages:
        answer[stage] = _encode_stage(request, spec, spec.stages.index(stage), rows, encode)
        answer[stage]["entropy"] = encode(statistics[:, _COLUMN[f"{stage}_entropy"]])
    if len(stages) == 2:
        answer["kl"] = encode(statistics[:, _COLUMN["kl"]])
    return answer


def _encode_stage(
    request: DistributionRequest,
    spec: RowSpec,
    at: int,
    rows: Sequence[TokenRow],
    encode: Encoder,
) -> dict[str, Any]:
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
        return {
            "token_ids": encode(token_ids[inside]),
            "logprobs": encode(logprobs[inside].astype(wanted, copy=False)),
            "offsets": encode(offsets),
        }
    encoded = {"logprobs": encode(logprobs.astype(wanted, copy=False))}
    return encoded if request.kept == DENSE else {"token_ids": encode(token_ids), **encoded}


def stacked(arrays: list[NDArray[Any]]) -> NDArray[Any]:
    """Return equal ``[n]`` arrays as ``[rows, n]``; a single one, as streams have, uncopied."""
    return np.stack(arrays) if len(arrays) > 1 else arrays[0][None]


def _sorted(
    logprobs: NDArray[np.floating], kept: int
) -> tuple[NDArray[np.int32], NDArray[np.floating]]:
    """Return the ids and values of dense ``[positions, vocab]`` rows, largest first."""
    order = np.argsort(-logprobs, axis=1, kind="stable")
    if kept != DENSE:
        order = order[:, :kept]
    return order.astype(np.int32), np.take_along_axis(logprobs, order, axis=1)


def nucleus_lengths(logprobs: NDArray[np.floating], top_p: float) -> NDArray[np.int64]:
    """Return how many of each row's entries reach a mass of ``top_p``, at least one.

    ``[positions, k]`` sorted, largest first -> ``[positions]``; all k if they do not reach it.
    """
    mass = np.cumsum(np.exp(logprobs.astype(np.float64)), axis=1)
    lengths: NDArray[np.int64] = np.minimum((mass < top_p).sum(axis=1) + 1, logprobs.shape[1])
    return lengths
