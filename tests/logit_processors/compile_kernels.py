"""Compiles every kernel of logits for a GPU, which needs none: run with Triton, not interpreted.

The interpreter accepts what a compiler refuses: this tells the two apart.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from logit_processors import device_apply, device_measure, device_text

H100 = GPUTarget("cuda", 90, 32)
FLOATS = ("*fp32", "*bf16", "*fp16")
# Whatever is not named and no constant is an int32.
FLOAT32 = ("adds", "directions", "norms", "out", "parts", "second", "second_norms", "statistics",
           "strengths")  # fmt: skip
INT32 = ("committed", "counts", "fed", "last", "masks", "offset", "pool_lengths", "pool_rows",
         "states", "token_offsets", "windows")  # fmt: skip
INT64 = ("ids", "patterns", "positions", "sampled", "slots", "step_rows")
TYPES = {
    **dict.fromkeys(FLOAT32, "*fp32"),
    **dict.fromkeys(INT32, "*i32"),
    **dict.fromkeys(INT64, "*i64"),
    "transitions": "*i16",
    "token_data": "*u8",
}
COLUMNS = {"LOGPROB": 1, "RANK": 3, "ENTROPY": 5, "KL": 7}


def variants() -> Iterator[tuple[Any, dict[str, str], dict[str, Any]]]:
    """Yield kernels with the types of their rows and their constants."""
    measured = {"TERMS": 5, "FLOOR": -1e30}
    for raw in FLOATS:
        for flag in (False, True):
            yield (
                device_measure._block_kernel,
                {"first": raw},
                {**measured, "TWO": flag, "BLOCK": 2048},
            )
            steered = {"IN_PLACE": flag, "BLOCK": 1024}
            yield device_apply._steer_kernel, {"logits": raw}, steered
        for kept in ("*fp32", "*fp16"):
            types = {"logits": raw, "out": kept}
            yield device_measure._logprobs_kernel, types, {"BLOCK": 2048}
    for two in (False, True):
        constants = {**measured, **COLUMNS, "TWO": two, "LANES": 128}
        yield device_measure._row_kernel, {}, constants
    yield device_apply._edit_kernel, {"logits": "*fp32"}, {"LANES": 64}
    yield device_apply._force_kernel, {"logits": "*fp32", "ids": "*i32"}, {"BLOCK": 1024}
    yield device_text._apply_kernel, {"logits": "*fp32"}, {"BLOCK": 1024}
    yield device_text._walk_kernel, {"out": "*i32"}, {}


def compile_for(kernel: Any, types: dict[str, str], constants: dict[str, Any]) -> Any:
    """Compile a kernel down to machine code."""
    signature = {
        name: "constexpr" if name in constants else types.get(name) or TYPES.get(name, "i32")
        for name in kernel.arg_names
    }
    source = ASTSource(kernel, signature, constants)
    return triton.compile(source, target=H100)


if __name__ == "__main__":
    assert "TRITON_INTERPRET" not in os.environ
    for kernel, types, constants in variants():
        assert compile_for(kernel, types, constants).asm["cubin"]
        print(kernel.__name__, *types.values())
