"""Directions from contrasting prompts, computed on the sides' residual streams."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def mean_difference(
    positive: NDArray[np.floating], negative: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return the difference of the sides' means, ``[layers, hidden]``.

    Contrastive activation addition: https://arxiv.org/abs/2312.06681, equation 1.

    Args:
        positive: residual streams ``[prompts, layers, hidden]``.
        negative: ``[prompts, layers, hidden]``, of as many prompts or another number.

    """
    difference: NDArray[np.float64] = positive.mean(axis=0, dtype=np.float64) - negative.mean(
        axis=0, dtype=np.float64
    )
    return difference


def principal_difference(
    positive: NDArray[np.floating], negative: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return the axis along which pairs differ most, ``[layers, hidden]``.

    The first right singular vector of the differences (representation engineering:
    https://arxiv.org/abs/2310.01405, section 3.1; not centred, so that what all pairs share
    counts), as long as the pairs differ along it on average, pointing to the positive side.

    Args:
        positive: residual streams ``[pairs, layers, hidden]``.
        negative: ``[pairs, layers, hidden]``, of the same pairs in the same order.

    """
    differences = (positive - negative).swapaxes(0, 1)
    scaled = []
    for layer in differences:
        pairs = layer.astype(np.float64)
        axis = np.linalg.svd(pairs, full_matrices=False)[2][0]
        scaled.append(axis * (pairs @ axis).mean())
    return np.stack(scaled)


METHODS = {"mean_difference": mean_difference, "pca": principal_difference}
