"""Arithmetic on vectors: weighted sums and orthogonal components.

A vector here is a mapping of tensor names (``layer.<n>`` or ``direction``) to arrays
``[hidden]``. All sums are float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = Mapping[str, NDArray[Any]]
ROUNDING = 1e-6
"""Smallest norm of a sum relative to its parts; a smaller sum is float32 rounding error."""


def combine(
    parts: Sequence[tuple[Vector, float]], orthogonal_to: Vector | None = None
) -> dict[str, NDArray[np.float64]]:
    """Return the weighted sum of vectors, optionally orthogonal to another vector.

    A layer is in the sum if it is in any part; a part without it adds nothing there. That
    makes it linear: steering with the sum is steering with the parts at once. Layers where
    nothing is left are left out, so the result of parts that cancel is empty.

    Args:
        parts: vectors and their weights.
        orthogonal_to: each layer's component along this vector's same layer is removed;
            layers that it does not have stay as they are.

    """
    sums: dict[str, NDArray[np.float64]] = {}
    sizes: dict[str, float] = {}
    for vector, weight in parts:
        for name, values in vector.items():
            scaled = weight * values.astype(np.float64)
            sums[name] = sums[name] + scaled if name in sums else scaled
            sizes[name] = sizes.get(name, 0.0) + float(np.linalg.norm(scaled))
    if orthogonal_to is not None:
        sums = {
            name: orthogonalised(values, orthogonal_to[name]) if name in orthogonal_to else values
            for name, values in sums.items()
        }
    return {
        name: values
        for name, values in sums.items()
        if np.linalg.norm(values) > ROUNDING * sizes[name]
    }


def orthogonalised(values: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    """Return ``values - other · (values · other) / (other · other)``, all ``[hidden]``."""
    unit = other.astype(np.float64)
    unit = unit / np.linalg.norm(unit)
    left: NDArray[np.float64] = values - unit * (values @ unit)
    return left
