"""A vector's content: a safetensors file, checked, addressed by its SHA-256.

A direction in unembedding space is one tensor ``direction`` ``[hidden]``; a vector of the
residual stream is a tensor ``layer.<n>`` ``[hidden]`` per decoder layer. Both float32.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from service.errors import BadRequestError, echo

_LAYER = re.compile(r"layer\.(0|[1-9][0-9]{0,3})")
_FLOATS = ("F32", "F16", "F64")


@dataclass(frozen=True)
class VectorContent:
    """A checked vector. ``direction`` or ``layers`` (by number) is set, float32 ``[hidden]``."""

    sha256: str
    data: bytes
    direction: NDArray[np.float32] | None
    layers: dict[int, NDArray[np.float32]]

    @property
    def residual(self) -> bool:
        """Whether it lives in the residual stream, before the final norm."""
        return self.direction is None

    @property
    def read_by_unembedding(self) -> NDArray[np.float32]:
        """Return what logit-space steering uses: the direction, or the last layer's vector."""
        return self.direction if self.direction is not None else self.layers[max(self.layers)]

    def describe(self) -> dict[str, Any]:
        """Return what the API tells of it."""
        vectors = self.layers.values() if self.residual else [self.read_by_unembedding]
        return {
            "sha256": self.sha256,
            "bytes": len(self.data),
            "space": "residual" if self.residual else "unembedding",
            "hidden_size": len(self.read_by_unembedding),
            "layers": sorted(self.layers),
            "norm": float(np.sqrt(sum(float((v.astype(np.float64) ** 2).sum()) for v in vectors))),
        }


def from_direction(direction: NDArray[np.float32]) -> VectorContent:
    """Make the content of one direction in unembedding space, ``[hidden]``."""
    return parse(save({"direction": direction.astype(np.float32)}), len(direction))


def parse(data: bytes, hidden_size: int) -> VectorContent:
    """Read and check a safetensors file.

    Args:
        data: the file.
        hidden_size: of the served model.

    Raises:
        BadRequestError: no safetensors, wrong names, types or shapes, values not finite.

    """
    try:
        tensors = load(data)
    except (SafetensorError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise BadRequestError(
            f"the body is not a safetensors file of {', '.join(_FLOATS)} tensors: "
            f"{str(error)[:200]}",
            "body",
        ) from None
    checked = {name: _check(name, tensor, hidden_size) for name, tensor in tensors.items()}
    layers = {
        int(match[1]): tensor
        for name, tensor in checked.items()
        if (match := _LAYER.fullmatch(name))
    }
    named = len(layers) + ("direction" in checked)
    if not checked or named < len(checked) or ("direction" in checked and layers):
        raise BadRequestError(
            f"tensors {echo(sorted(checked)[:10])} are not a vector; allowed: one tensor "
            "'direction' (unembedding space), or 'layer.<n>' for each layer (residual stream)",
            "body",
        )
    return VectorContent(hashlib.sha256(data).hexdigest(), data, checked.get("direction"), layers)


def _check(name: str, tensor: NDArray[Any], hidden_size: int) -> NDArray[np.float32]:
    if tensor.dtype.kind != "f":
        raise BadRequestError(
            f"tensor {echo(name)} is of type {tensor.dtype}; allowed: {', '.join(_FLOATS)}", "body"
        )
    if tensor.shape != (hidden_size,):
        raise BadRequestError(
            f"tensor {echo(name)} has shape {list(tensor.shape)}; allowed: [{hidden_size}], the "
            "model's hidden size",
            "body",
        )
    with np.errstate(over="ignore"):
        values = tensor.astype(np.float32)
    if not np.isfinite(values).all():
        raise BadRequestError(f"tensor {echo(name)} holds values that are not finite", "body")
    if not values.any():
        raise BadRequestError(f"tensor {echo(name)} is zero: it has no direction", "body")
    return values
