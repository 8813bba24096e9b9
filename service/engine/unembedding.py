"""The model's unembedding for steering: scores of directions, directions of tokens.

Called on every tensor-parallel rank alike: the unembedding is split over the vocabulary,
so a rank holds its share and the shares are gathered.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.distributed import (
    tensor_model_parallel_all_gather,
    tensor_model_parallel_all_reduce,
)

from service.engine.row_covariance import PART, RowCovariance
from service.errors import SensefieldError

_CHUNK = 8192  # rows of the unembedding made float32 at a time
_TOGETHER = 16
"""Directions scored at a time, padded if there are fewer: scores must not depend on the count."""
_HEADS = ("lm_head", "model.embed_tokens", "embed_out", "output", "model.decoder.lm_head")
"""Paths of the unembedding in vLLM's models; some tie it to the embedding."""


class UnembeddingError(SensefieldError):
    """The model has no unembedding that can be read."""


def find_unembedding(model: torch.nn.Module) -> Any:
    """Return the layer that gives the language model's logits."""
    for path in _HEADS:
        head = module_at(model, path)
        head = getattr(head, "base_layer", head)  # under LoRA
        if getattr(head, "org_vocab_size", None) is not None:
            return head
    raise UnembeddingError(
        f"{type(model).__name__} has no unembedding among {', '.join(_HEADS)}: steering in logit "
        "space is not possible"
    )


def token_scores(model: torch.nn.Module, directions: torch.Tensor) -> torch.Tensor:
    """Return W_U · u of each direction u, over the whole vocabulary.

    One pass over W_U for all of them: ``[directions, hidden]`` float32 -> ``[directions, vocab]``
    float32.
    """
    head = find_unembedding(model)
    directions = directions.to(_device(model))
    weight = getattr(head, "weight", None)
    if weight is None or not weight.is_floating_point() or weight.shape[-1] != len(directions[0]):
        # A quantized unembedding multiplies with its own kernel and precision.
        scores = head.quant_method.apply(head, directions.to(torch.bfloat16))
    else:
        scores = _products(weight, directions)
    return vocabulary_wide(scores.float(), model)[:, : head.org_vocab_size].contiguous()


def _products(weight: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """``[vocab, hidden]``, ``[directions, hidden]`` float32 -> ``[directions, vocab]`` float32."""
    empty = -len(directions) % _TOGETHER
    groups = torch.nn.functional.pad(directions, (0, 0, 0, empty)).split(_TOGETHER)
    parts = []
    for part in weight.split(_CHUNK):
        values = part.float().T
        parts.append(torch.cat([group @ values for group in groups]))
    return torch.cat(parts, dim=1)[: len(directions)]


def unembedding_covariance(model: torch.nn.Module) -> RowCovariance:
    """Return the covariance of the rows of W_U, not yet computed."""
    rows, _, total = own_rows(model)
    # A rank may have padding instead of rows; all ranks have equally many parts.
    parts = -(-len(find_unembedding(model).weight) // PART)
    return RowCovariance(rows, parts, total, lambda shares: summed(shares, model))


def token_direction(
    model: torch.nn.Module, token_ids: list[int], covariance: RowCovariance
) -> torch.Tensor:
    """Return the unit direction of tokens in the unembedding, ``[hidden]`` float32.

    The direction whose scores over the vocabulary come closest, by least squares, to
    raising these tokens and no others: Σ⁻¹(w - μ), with w the mean of the tokens' rows of
    W_U, μ and Σ the mean and covariance of all rows. Without Σ⁻¹ the frequent tokens, which
    share a few directions of great variance, would outweigh the tokens meant.
    """
    rows, start, _ = own_rows(model)
    wanted = [token - start for token in token_ids if start <= token < start + len(rows)]
    mean = summed(rows[wanted].float().sum(dim=0), model) / len(token_ids)
    direction = covariance.whitened(mean)
    return (direction / direction.norm()).float()


def own_rows(model: torch.nn.Module) -> tuple[torch.Tensor, int, int]:
    """Return this rank's rows of W_U, the id of the first, and the number on all ranks."""
    head = find_unembedding(model)
    weight = getattr(head, "weight", None)
    if weight is None or not weight.is_floating_point():
        raise UnembeddingError("a quantized unembedding has no rows to take a direction from")
    start = head.shard_indices.org_vocab_start_index
    end = head.shard_indices.org_vocab_end_index
    return weight[: end - start], start, head.org_vocab_size


def vocabulary_wide(own: torch.Tensor, model: torch.nn.Module) -> torch.Tensor:
    """Return rows ``[..., vocab]`` gathered from the ranks' shares."""
    if find_unembedding(model).tp_size == 1:
        return own
    gathered = tensor_model_parallel_all_gather(own.reshape(-1, own.shape[-1]))
    return gathered.reshape(*own.shape[:-1], -1)


def summed(shares: torch.Tensor, model: torch.nn.Module) -> torch.Tensor:
    """Return the sum over all ranks."""
    if find_unembedding(model).tp_size == 1:
        return shares
    return tensor_model_parallel_all_reduce(shares)


def module_at(model: torch.nn.Module, path: str) -> Any:
    """Return the language model's module at a dotted path, or None."""
    found: Any = _language_model(model)
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


def _language_model(model: torch.nn.Module) -> Any:
    inner = getattr(model, "get_language_model", None)
    return inner() if inner is not None and not hasattr(model, "lm_head") else model


def _device(model: torch.nn.Module) -> torch.device:
    return next(model.parameters()).device
