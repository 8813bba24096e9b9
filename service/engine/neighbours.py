"""Nearest tokens, in the embedding and in the unembedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from service.engine.unembedding import own_rows, summed, vocabulary_wide

_CHUNK = 8192  # rows made float32 at a time


def embedding_cosines(model: Any, token_ids: Sequence[int], vocab_size: int) -> torch.Tensor:
    """Return each token's cosine with the mean of some tokens' embeddings, ``[vocab]`` float32."""
    device = next(model.parameters()).device

    def rows(ids: torch.Tensor) -> torch.Tensor:
        embedded: torch.Tensor = model.embed_input_ids(ids.to(device)).float()
        return embedded

    direction = rows(torch.tensor(list(token_ids))).mean(dim=0)
    parts = torch.arange(vocab_size).split(_CHUNK)
    return torch.cat([_cosines(rows(part), direction) for part in parts])


def embedding_direction(model: Any, token_ids: Sequence[int], vocab_size: int) -> torch.Tensor:
    """Return the tokens' mean embedding minus the mean of all, ``[hidden]`` float32."""
    device = next(model.parameters()).device
    parts = torch.arange(vocab_size, device=device).split(_CHUNK)
    mean = sum(model.embed_input_ids(part).double().sum(dim=0) for part in parts) / vocab_size
    own = model.embed_input_ids(torch.tensor(list(token_ids), device=device)).double()
    direction: torch.Tensor = (own.mean(dim=0) - mean).float()
    return direction


def unembedding_cosines(model: Any, token_ids: Sequence[int]) -> torch.Tensor:
    """Return each token's cosine with the mean of some tokens' rows of W_U, ``[vocab]`` float32."""
    rows, start, total = own_rows(model)
    here = [token - start for token in token_ids if start <= token < start + len(rows)]
    direction = summed(rows[here].float().sum(dim=0), model) / len(token_ids)
    parts = [_cosines(part.float(), direction) for part in rows.split(_CHUNK)]
    return vocabulary_wide(torch.cat(parts), model)[:total]


def nearest(cosines: torch.Tensor, token_ids: Sequence[int], k: int) -> dict[str, list[Any]]:
    """Return the k tokens of highest cosine, of ``[vocab]``, that are not the tokens themselves."""
    values = cosines.clone()
    values[list(token_ids)] = -torch.inf
    best = values.topk(min(k, len(values) - len(set(token_ids))))
    return {"token_ids": best.indices.tolist(), "cosines": best.values.tolist()}


def _cosines(rows: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """``[rows, hidden]``, ``[hidden]`` -> ``[rows]``; the cosine of a row of zeros is 0."""
    norms = rows.norm(dim=1) * direction.norm()
    return (rows @ direction) / norms.clamp(min=torch.finfo(torch.float32).tiny)
