"""The compiler that is never asked to compile."""

from typing import Any

from triton.backends.compiler import BaseBackend


class CPUBackend(BaseBackend):
    """Claims the target named ``cpu``."""

    @staticmethod
    def supports_target(target: Any) -> bool:
        """Say whether the target is ours."""
        return bool(target.backend == "cpu")


# The rest of the interface is for compiling.
CPUBackend.__abstractmethods__ = frozenset()
