"""A vector's content: its directions, checked, addressed by their SHA-256.

A direction in unembedding space is one tensor ``direction`` ``[hidden]``; a vector of the
residual stream is a tensor ``layer.<n>`` ``[hidden]`` for each decoder layer n, counted from
0, after which it is added. All float32.

The address is the directions', not the file's: equal directions have the same address in any
container and with any metadata, so that ``import(export(v))`` is ``v``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from service.errors import BadRequestError, echo
from service.schemas.vector_answers import SummaryAnswer

DIRECTION = "direction"
_HEADER_BYTES = 2 << 20
_LAYER = re.compile(r"layer\.(0|[1-9][0-9]{0,3})")


@dataclass(frozen=True)
class ModelFacts:
    """The facts about the served model that a vector must fit."""

    name: str
    architecture: str
    """Hugging Face's ``model_type``, such as ``qwen3``."""
    hidden_size: int
    layers: int
    dtype: str
    largest: float
    """Largest finite value of ``dtype``."""

    @property
    def max_file_bytes(self) -> int:
        """Most bytes that a file of a vector needs: every layer in float64, and its header."""
        return 8 * self.layers * self.hidden_size + _HEADER_BYTES


@dataclass(frozen=True)
class VectorContent:
    """A checked vector: ``direction`` ``[hidden]`` or ``layer.<n>`` ``[hidden]``, float32."""

    tensors: Mapping[str, NDArray[np.float32]]

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of, for each tensor by name: name, NUL, uint64 length, float32 values.

        Numbers are little-endian.
        """
        digest = hashlib.sha256()
        for name, values in sorted(self.tensors.items()):
            digest.update(name.encode() + b"\0" + len(values).to_bytes(8, "little"))
            digest.update(values.astype("<f4").tobytes())
        return digest.hexdigest()

    @cached_property
    def layers(self) -> dict[int, NDArray[np.float32]]:
        """Vectors by layer, in order; empty in unembedding space."""
        found = {
            int(name.removeprefix("layer.")): v
            for name, v in self.tensors.items()
            if name != DIRECTION
        }
        return dict(sorted(found.items()))

    @property
    def residual(self) -> bool:
        """True for a vector of the residual stream, False for one of the unembedding."""
        return DIRECTION not in self.tensors

    @property
    def read_by_unembedding(self) -> NDArray[np.float32]:
        """Return what logit-space steering uses: the direction, or the last layer's vector."""
        return self.layers[max(self.layers)] if self.residual else self.tensors[DIRECTION]

    @cached_property
    def summary(self) -> Summary:
        """The content's numbers, which are stored with its name."""
        norms = {layer: _norm(values) for layer, values in self.layers.items()}
        return Summary(
            space="residual" if self.residual else "unembedding",
            hidden_size=len(self.read_by_unembedding),
            norm=float(np.linalg.norm([_norm(values) for values in self.tensors.values()])),
            layer_norms=norms,
            largest=float(max(np.abs(values).max() for values in self.tensors.values())),
        )


@dataclass(frozen=True)
class Summary:
    """A content in numbers; norms are Euclidean."""

    space: Literal["residual", "unembedding"]
    hidden_size: int
    norm: float
    layer_norms: dict[int, float]
    largest: float
    """Largest absolute value."""

    def misfit(self, model: ModelFacts) -> str | None:
        """Return the reason why the model cannot use the vector, None if it can."""
        if self.hidden_size != model.hidden_size:
            return f"it is of hidden size {self.hidden_size}, the model's is {model.hidden_size}"
        if self.layer_norms and max(self.layer_norms) >= model.layers:
            return (
                f"it has layer {max(self.layer_norms)}, the model has layers 0 to "
                f"{model.layers - 1}"
            )
        if self.largest > model.largest:
            return f"it holds {self.largest:g}, which overflows the model's {model.dtype}"
        return None

    def describe(self) -> SummaryAnswer:
        """Return the summary for the API."""
        return {
            "space": self.space,
            "hidden_size": self.hidden_size,
            "layers": sorted(self.layer_norms),
            "norm": self.norm,
            "layer_norms": {str(layer): norm for layer, norm in sorted(self.layer_norms.items())},
        }


def check(
    tensors: Mapping[str, NDArray[np.floating[Any]]],
    model: ModelFacts,
    param: str = "body",
    called: str = "layer",
) -> VectorContent:
    """Return tensors as a content that the model can use.

    Args:
        tensors: ``[hidden]`` each, of any float type.
        model: the served model.
        param: the field that an error names.
        called: the client's prefix of a layer's tensor, for errors.

    Raises:
        BadRequestError: wrong names or shapes; values not finite, too large, or all zero.

    """
    layers = {name for name in tensors if _LAYER.fullmatch(name)}
    others = tensors.keys() - layers
    if not tensors or (others != {DIRECTION} if others else False) or (others and layers):
        raise BadRequestError(
            f"tensors {echo(sorted(tensors)[:10])} are not a vector; allowed: one tensor "
            "'direction' (unembedding space), or 'layer.<n>' for each layer (residual stream)",
            param,
        )
    content = VectorContent(
        {
            name: _values(name.replace("layer", called), tensors[name], model, param)
            for name in sorted(tensors)
        }
    )
    if misfit := content.summary.misfit(model):
        raise BadRequestError(f"the vector cannot be used: {misfit}", param)
    return content


def _values(
    name: str, tensor: NDArray[np.floating[Any]], model: ModelFacts, param: str
) -> NDArray[np.float32]:
    if tensor.shape != (model.hidden_size,):
        raise BadRequestError(
            f"tensor {echo(name)} has shape {echo(list(tensor.shape))}; allowed: "
            f"[{model.hidden_size}], the model's hidden size",
            param,
        )
    with np.errstate(over="ignore"):
        values = tensor.astype(np.float32)
    if not np.isfinite(values).all():
        raise BadRequestError(f"tensor {echo(name)} holds values that are not finite", param)
    if not values.any():
        raise BadRequestError(f"tensor {echo(name)} is zero: it has no direction", param)
    return values


def _norm(values: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(values.astype(np.float64)))
