"""Mends of Triton's interpreter, loaded as plugins of vLLM's in each of its processes."""

from typing import Any

import numpy as np
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle


def keep_bools() -> None:
    """Let a scalar that is true or false stay that when it is spread over a block.

    The interpreter types the outcome of a comparison as what was compared, and so makes
    integers of it there, which no load takes for a mask: vLLM's n-gram kernel needs one.
    """
    stock = InterpreterBuilder.create_splat

    def create_splat(self: Any, block: Any, scalar: Any) -> Any:
        if scalar.data.dtype != np.bool_:
            return stock(self, block, scalar)
        return TensorHandle(np.full(block.shape, scalar.data.item()), scalar.dtype.scalar)

    InterpreterBuilder.create_splat = create_splat


def sort_with_torch() -> None:
    """Have vLLM apply top-k and top-p with torch, as it does where there is no Triton.

    Its kernel asks a loop's number for its type, and the interpreter's loops count in Python's
    integers: the first request with either would end the engine.
    """
    from vllm.v1.sample.ops import topk_topp_sampler

    setattr(topk_topp_sampler, "HAS_TRITON", False)  # noqa: B010
