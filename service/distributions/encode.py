"""The ``distribution`` object of an answer, from a run of kept rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from logit_processors.row_spec import RowSpec, TokenRow
from service.distributions.stages import COLUMN, stage_arrays, stages_of, statistics_of
from service.distributions.tensors import ENCODERS
from service.schemas.distribution import DistributionRequest


def encode_distribution(
    request: DistributionRequest,
    spec: RowSpec,
    vocab_size: int,
    token_ids: Sequence[int],
    rows: Sequence[TokenRow],
) -> dict[str, Any]:
    """Return the object.

    Args:
        request: what the client wants to see.
        spec: what the rows hold.
        vocab_size: number of logits.
        token_ids: the tokens of the rows.
        rows: a row for each of them.

    """
    encode = ENCODERS[request.encoding]
    statistics = statistics_of(rows)
    stages = stages_of(request, spec)
    sampled: dict[str, Any] = {"token_id": encode(np.array(token_ids, np.int32))}
    for stage in stages:
        sampled[f"{stage}_logprob"] = encode(statistics[:, COLUMN[f"{stage}_logprob"]])
    for stage in stages:
        ranks = statistics[:, COLUMN[f"{stage}_rank"]].astype(np.int32)
        sampled[f"{stage}_rank"] = encode(ranks)
    answer: dict[str, Any] = {
        "positions": len(rows),
        "top_k": vocab_size if request.top_k == "all" else request.top_k,
        "vocab_size": vocab_size,
        "sampled": sampled,
    }
    for stage in stages:
        arrays = stage_arrays(request, spec, stage, rows)
        encoded = {"logprobs": encode(arrays.logprobs)}
        if arrays.token_ids is not None:
            encoded = {"token_ids": encode(arrays.token_ids), **encoded}
        if arrays.offsets is not None:
            encoded["offsets"] = encode(arrays.offsets)
        encoded["entropy"] = encode(statistics[:, COLUMN[f"{stage}_entropy"]])
        answer[stage] = encoded
    if len(stages) == 2:
        answer["kl"] = encode(statistics[:, COLUMN["kl"]])
    return answer
