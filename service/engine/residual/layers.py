"""The decoder layers of a loaded model, and their outputs."""

from __future__ import annotations

from typing import Any

import torch
from vllm.model_executor.models.utils import PPMissingLayer

_PATHS = (
    "model.layers",
    "transformer.h",
    "model.decoder.layers",
    "gpt_neox.layers",
    "transformer.blocks",
    "transformer.encoder.layers",
    "layers",
    "h",
)
"""Paths of the decoder layers in vLLM's models."""

_WHOLE = {
    "CohereDecoderLayer",
    "Cohere2MoeDecoderLayer",
    "CohereCompassDecoderLayer",
    "Exaone4DecoderLayer",
    "GraniteMoeHybridAttentionDecoderLayer",
    "GraniteMoeHybridMambaDecoderLayer",
    "HyperCLOVAXDecoderLayer",
    "MuseGlimmerDecoderLayer",
    "PhiMoEDecoderLayer",
    "StablelmDecoderLayer",
}
"""Layers that return (stream, rest): the second tensor is already part of the first."""


def find_layers(model: torch.nn.Module) -> torch.nn.ModuleList | str:
    """Return all decoder layers of the language model, or the reason why none are found.

    Under pipeline parallelism the layers of other ranks are ``PPMissingLayer``.
    """
    language = _language_model(model)
    for path in _PATHS:
        found: Any = language
        for name in path.split("."):
            found = getattr(found, name, None)
        if isinstance(found, torch.nn.ModuleList) and len(found):
            return found
    return f"{type(language).__name__} has no decoder layers among {', '.join(_PATHS)}"


def own_layers(layers: torch.nn.ModuleList) -> dict[int, torch.nn.Module]:
    """Return the layers that this rank runs, by their number in the whole model."""
    return {
        number: layer
        for number, layer in enumerate(layers)
        if not isinstance(layer, PPMissingLayer)
    }


def stream_of(
    layer: torch.nn.Module, output: Any, hidden_size: int
) -> tuple[torch.Tensor, torch.Tensor | None] | None:
    """Return the tensors ``[tokens, hidden]`` whose sum is the residual stream after a layer.

    The first may be changed in place; the second is None if the first is the whole stream.
    None for an output of an unknown form.
    """
    hidden, other = output if isinstance(output, tuple) and len(output) == 2 else (output, None)
    if not isinstance(hidden, torch.Tensor) or not isinstance(other, torch.Tensor | None):
        return None
    if other is None and hidden.dim() == 3 and hidden.shape[0] == 1:
        hidden = hidden[0]  # transformers' own modules, which vLLM can run, keep a batch of one
    if hidden.dim() != 2 or hidden.shape[1] != hidden_size:
        return None
    if other is None or type(layer).__name__ in _WHOLE:
        return hidden, None
    return (hidden, other) if other.shape == hidden.shape else None


def _language_model(model: torch.nn.Module) -> Any:
    inner = getattr(model, "get_language_model", None)
    return model if inner is None else inner()
