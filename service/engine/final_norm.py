"""The final norm, before the unembedding, and its effect on the residual stream."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from vllm.model_executor.layers.layernorm import GemmaRMSNorm, LayerNorm, RMSNorm

from service.engine.unembedding import UnembeddingError, module_at

_PATHS = (
    "model.norm",
    "transformer.ln_f",
    "model.final_layernorm",
    "model.final_layer_norm",
    "gpt_neox.final_layer_norm",
    "model.decoder.final_layer_norm",
    "transformer.norm_f",
    "transformer.encoder.final_layernorm",
)


def find_final_norm(model: torch.nn.Module) -> Any:
    """Return the norm before the unembedding; UnembeddingError if none is found."""
    for path in _PATHS:
        norm = module_at(model, path)
        if norm is not None:
            return norm
    raise UnembeddingError(
        f"{type(model).__name__} has no final norm among {', '.join(_PATHS)}: vectors of "
        "its residual stream cannot be read in logit space"
    )


def normed(model: torch.nn.Module, states: torch.Tensor) -> torch.Tensor:
    """Return residual-stream states ``[rows, hidden]`` after the final norm, same shape."""
    found = find_final_norm(model)(states)
    # Cohere's norms also return their residual input, which is None here.
    rows: torch.Tensor = found[0] if isinstance(found, tuple) else found
    return rows


def read_directions(model: torch.nn.Module, vectors: torch.Tensor) -> torch.Tensor:
    """Return vectors of the residual stream as directions at the unembedding's input.

    RMSNorm turns a step v of the stream into g ⊙ v, with the gain g. LayerNorm also subtracts
    the mean of the hidden vector: g ⊙ (v - mean v). Its bias is the same with and without the
    step, and the number that either divides by does not change the direction. TransformerLens
    folds a LayerNorm into the unembedding in the same way.

    Args:
        model: vLLM's.
        vectors: ``[vectors, hidden]`` float32.

    Returns:
        ``[vectors, hidden]`` float32 on the model's device; zeros for a vector that is the
        same everywhere, where the norm subtracts the mean.

    Raises:
        UnembeddingError: the model has no final norm of a known kind.

    """
    norm = find_final_norm(model)
    centring, plain, from_one = _kinds()
    if not isinstance(norm, (*centring, *plain)):
        raise UnembeddingError(
            f"the final norm of {type(model).__name__}, {type(norm).__name__}, is neither a known "
            "RMSNorm nor a known LayerNorm: vectors of its residual stream cannot be read in "
            "logit space"
        )
    vectors = vectors.to(next(model.parameters()).device)
    if isinstance(norm, centring):
        vectors = _centred(vectors)
    weight = getattr(norm, "weight", None)
    if weight is None:
        return vectors
    gain = weight.detach().float()
    return vectors * (gain + 1 if isinstance(norm, from_one) else gain)


def _centred(vectors: torch.Tensor) -> torch.Tensor:
    """Subtract each vector's mean: ``[vectors, hidden]`` float32 -> the same."""
    values = vectors.double()
    left = values - values.mean(dim=-1, keepdim=True)
    # A constant vector leaves only rounding errors, which are no direction.
    least = torch.finfo(torch.float32).eps * values.norm(dim=-1, keepdim=True)
    return torch.where(left.norm(dim=-1, keepdim=True) > least, left, 0.0).float()


@cache
def _kinds() -> tuple[tuple[type, ...], tuple[type, ...], tuple[type, ...]]:
    """Return the norms that subtract the mean, that do not, and whose weight is the gain - 1."""
    # Imported late: these models define norms of their own.
    from transformers.models.olmo.modeling_olmo import OlmoLayerNorm
    from vllm.model_executor.models import cohere2_moe, commandr
    from vllm.model_executor.models.nemotron import NemotronLayerNorm1P

    centring = (
        *(LayerNorm, torch.nn.LayerNorm, commandr.LayerNorm),
        *(NemotronLayerNorm1P, OlmoLayerNorm),
    )
    plain = (RMSNorm, GemmaRMSNorm, torch.nn.RMSNorm, commandr.RMSNorm, cohere2_moe.RMSNorm)
    return centring, plain, (GemmaRMSNorm, NemotronLayerNorm1P)
