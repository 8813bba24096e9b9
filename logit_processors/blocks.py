"""The number of a row's elements that one program of a kernel processes."""

from __future__ import annotations

import torch

_BLOCKS = 3


def block_of(size: int, device: torch.device, gpu_block: int) -> int:
    """Return the block size of a kernel over rows of ``size`` elements, a power of two.

    A GPU runs the programs of a row side by side. On a CPU, Triton's interpreter runs them one
    after another and spends its time on each program, not on its elements: three programs cover a
    row, so that the parts of a row are still merged.
    """
    if device.type != "cpu":
        return gpu_block
    return 1 << (-(-size // _BLOCKS) - 1).bit_length()
