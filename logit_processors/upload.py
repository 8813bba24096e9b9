"""Copies small arrays to the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def upload(
    values: Sequence[object] | NDArray[np.integer[Any] | np.bool_],
    device: torch.device,
    dtype: torch.dtype = torch.int64,
) -> torch.Tensor:
    """Return the values as a tensor on the device, without waiting for it."""
    tensor = torch.as_tensor(values, dtype=dtype)
    if device.type == "cuda":
        # Only pinned memory is copied asynchronously.
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
