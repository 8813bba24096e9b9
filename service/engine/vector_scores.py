"""Token scores of vectors: kept for steering, or read for the nearest tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from logit_processors.directions import DIRECTIONS
from logit_processors.standardise import standardise
from service.engine.final_norm import read_directions
from service.engine.unembedding import UnembeddingError, token_scores

Vector = tuple[str, bytes, bool]
"""SHA-256 of the content; ``[hidden]`` float32; whether it is of the residual stream."""


def keep(model: Any, width: int, vectors: Sequence[Vector], holder: str) -> list[str | None]:
    """Keep the token scores of vectors in the table that steering reads.

    Vectors without scores are scored in one pass over the unembedding.

    Args:
        model: vLLM's.
        width: logits of the model.
        vectors: vectors at the unembedding's input, or in the residual stream before the final
            norm.
        holder: id of the API process; the vectors stay until it drops them.

    Returns:
        For each vector None, or the reason why it cannot steer logits: every token gets the same
        score, or the model's unembedding or final norm is not found.

    """
    reasons: dict[str, str] = {}
    for space in (False, True):
        new = {
            content: data
            for content, data, residual in vectors
            if residual is space and not DIRECTIONS.share(content, holder)
        }
        if new:
            reasons |= _keep_new(model, width, new, space, holder)
    return [reasons.get(content) for content, _, _ in vectors]


def _keep_new(
    model: Any, width: int, vectors: dict[str, bytes], residual: bool, holder: str
) -> dict[str, str]:
    """Keep vectors of one space; by content, return the reason why one cannot steer."""
    reasons: dict[str, str] = {}
    rows = rows_of(b"".join(vectors.values()), len(vectors))
    try:
        scored = token_scores(model, read_directions(model, rows) if residual else rows)
    except UnembeddingError as error:
        return dict.fromkeys(vectors, str(error))
    for content, scores in zip(vectors, scored, strict=True):
        try:
            values = standardise(scores)
        except ValueError as error:
            reasons[content] = str(error)
        else:
            # The logits beyond the vocabulary get a score of 0.
            padded = torch.nn.functional.pad(values, (0, width - len(values)))
            DIRECTIONS.put(content, padded, holder)
    return reasons


def rows_of(data: bytes, count: int) -> torch.Tensor:
    """Return float32 bytes as ``[count, hidden]``."""
    return torch.from_numpy(np.frombuffer(data, np.float32).reshape(count, -1).copy())


def extremes_of_layers(
    model: Any, rows: torch.Tensor, vocab_size: int, k: int
) -> list[dict[str, list[Any]]]:
    """Return the :func:`extremes` of each vector of the residual stream, ``[vectors, hidden]``.

    They are empty for a vector that gives every token the same score.
    """
    found = []
    for scores in token_scores(model, read_directions(model, rows)):
        try:
            found.append(extremes(standardise(scores)[:vocab_size], k))
        except ValueError:
            found.append({"raised_ids": [], "raised": [], "lowered_ids": [], "lowered": []})
    return found


def extremes(scores: torch.Tensor, k: int) -> dict[str, list[Any]]:
    """Return ids and scores ``[vocab]`` of the k tokens raised and lowered most."""
    raised, lowered = scores.topk(k), (-scores).topk(k)
    return {
        "raised_ids": raised.indices.tolist(),
        "raised": raised.values.tolist(),
        "lowered_ids": lowered.indices.tolist(),
        "lowered": (-lowered.values).tolist(),
    }
