"""Vectors of the residual stream as GGUF control vectors of llama.cpp and repeng.

Such a file has ``general.architecture`` "controlvector", ``controlvector.model_hint`` (the
architecture of the model), ``controlvector.layer_count`` (how many layers it holds) and a
float32 tensor ``direction.<N>`` ``[hidden]`` for each layer.

N is our n: llama.cpp adds ``direction.N`` to the output of block N counted from 0
(``build_cvec`` after the block's last residual addition), repeng to the output of
``model.layers[N]``, we add ``layer.n`` to the output of decoder layer n counted from 0. But
llama.cpp keeps its data from layer 1 on and refuses a file with ``direction.0``, so a vector with
``layer.0`` cannot be exported; from repeng, which allows it, it can be imported.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import BadRequestError, echo
from service.gguf_header import TensorInfo, read_header
from service.vectors.content import VectorContent
from service.vectors.safetensors_file import from_bfloat16

ARCHITECTURE = "controlvector"
MODEL_HINT = f"{ARCHITECTURE}.model_hint"
LAYER_COUNT = f"{ARCHITECTURE}.layer_count"
_MAX_ENTRIES = 1 << 16
"""Most keys, tensors, dimensions and array elements that a file may claim, all together."""
_FLOATS = {0: ("F32", "<f4"), 1: ("F16", "<f2"), 28: ("F64", "<f8"), 30: ("BF16", "<u2")}
_DIRECTION = re.compile(r"direction\.(0|[1-9][0-9]{0,3})")


def read_gguf(data: bytes) -> tuple[dict[str, NDArray[np.floating[Any]]], str | None]:
    """Return the tensors ``layer.<n>`` of a control vector, and its model hint.

    Raises:
        BadRequestError: no whole GGUF file, not a control vector, or tensors of other types.

    """
    header = read_header(data, _MAX_ENTRIES)
    architecture = header.fields.get("general.architecture")
    if architecture != ARCHITECTURE:
        raise BadRequestError(
            f"the GGUF file is a {echo(architecture)}; allowed: {ARCHITECTURE!r}", "body"
        )
    hint = header.fields.get(MODEL_HINT)
    return _layers(data, header.tensors), hint if isinstance(hint, str) else None


def write_gguf(content: VectorContent, model_hint: str) -> bytes:
    """Return the control vector file of a content.

    Raises:
        BadRequestError: a direction of the unembedding, which has no layers, or a layer 0.

    """
    from gguf import GGUFWriter

    if not content.residual:
        raise BadRequestError(
            "a direction in unembedding space has no layers, and a GGUF control vector has "
            "nothing else; download it as safetensors",
            "format",
        )
    if 0 in content.layers:
        raise BadRequestError(
            "the vector has a layer 0, and llama.cpp refuses control vectors that have one; "
            "download it as safetensors",
            "format",
        )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vector.gguf"
        writer = GGUFWriter(file, ARCHITECTURE)
        writer.add_string(MODEL_HINT, model_hint)
        writer.add_uint32(LAYER_COUNT, len(content.layers))
        for layer, values in content.layers.items():
            writer.add_tensor(f"direction.{layer}", values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return file.read_bytes()


def _layers(data: bytes, tensors: list[TensorInfo]) -> dict[str, NDArray[np.floating[Any]]]:
    found: dict[str, NDArray[np.floating[Any]]] = {}
    if not tensors:
        raise BadRequestError(
            "the GGUF file has no tensors; allowed: one 'direction.<n>' for each layer", "body"
        )
    for tensor in tensors:
        match = _DIRECTION.fullmatch(tensor.name)
        if match is None or f"layer.{match[1]}" in found:
            raise BadRequestError(
                f"tensor {echo(tensor.name)} does not belong in a control vector; allowed: one "
                "'direction.<n>' for each layer",
                "body",
            )
        found[f"layer.{match[1]}"] = _values(data, tensor)
    return found


def _values(data: bytes, tensor: TensorInfo) -> NDArray[np.floating[Any]]:
    name = echo(tensor.name)
    if tensor.kind not in _FLOATS:
        allowed = ", ".join(kind for kind, _ in _FLOATS.values())
        raise BadRequestError(
            f"tensor {name} is of GGUF type {tensor.kind}; allowed: {allowed}", "body"
        )
    if len(tensor.shape) != 1:
        raise BadRequestError(
            f"tensor {name} has shape {echo(tensor.shape)}; allowed: one dimension", "body"
        )
    kind, code = _FLOATS[tensor.kind]
    (size,) = tensor.shape
    if tensor.start + size * np.dtype(code).itemsize > len(data):
        raise BadRequestError(
            f"the body is not a whole GGUF file: tensor {name} ends beyond it", "body"
        )
    values: NDArray[Any] = np.frombuffer(data, code, size, tensor.start)
    return from_bfloat16(values) if kind == "BF16" else values
