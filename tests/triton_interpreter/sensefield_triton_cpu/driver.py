"""The driver of a device that is the host."""

from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase


class _Utils:
    @staticmethod
    def get_device_properties(device: int) -> dict[str, int]:
        return {"multiprocessor_count": 1, "max_shared_mem": 1 << 16, "warpSize": 1}


class CPUDriver(DriverBase):
    """Always active; its only device is 0."""

    utils = _Utils()

    def __init__(self) -> None:
        """Need nothing: the base class would look for a device."""

    @classmethod
    def is_active(cls) -> bool:
        return True

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cpu", 0, 1)

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_current_device(self) -> int:
        return 0

    def set_current_device(self, device: int) -> None:
        pass

    def get_current_stream(self, device: int | None = None) -> int:
        return 0

    def get_device_interface(self) -> Any:
        return torch.cpu


# The rest of the interface is for launching compiled kernels.
CPUDriver.__abstractmethods__ = frozenset()
