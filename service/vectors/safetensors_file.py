"""Vectors as safetensors files.

Read: tensors ``direction`` or ``layer.<n>`` of F64, F32, F16 or BF16. Written: the same in F32,
with this ``__metadata__`` (strings, as the format wants them):

=============  =====================================================================
``format``     ``sensefield.vector``
``version``    ``1``
``layers``     ``layer.<n> is added after decoder layer n, counted from 0``
``sha256``     address of the content
``model``      model it was made on; left out if unknown
``made_from``  how it was made, as JSON
``created``    seconds since the epoch
``created_by`` ``sensefield <version>``
=============  =====================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from service.errors import BadRequestError, echo
from service.vectors.content import VectorContent

MAX_HEADER_BYTES = 1 << 20
"""A header of 100 layers is 10 KB; a larger one only costs memory."""
FORMAT = "sensefield.vector"
LAYERS = "layer.<n> is added after decoder layer n, counted from 0"
_LENGTH_BYTES = 8
_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def looks_like_safetensors(data: bytes) -> bool:
    """Say whether a JSON object begins where a safetensors file has its header."""
    return data[_LENGTH_BYTES : _LENGTH_BYTES + 1] == b"{"


def read_safetensors(
    data: bytes,
) -> tuple[dict[str, NDArray[np.floating[Any]]], dict[str, str]]:
    """Return the tensors of a file and its metadata.

    Raises:
        BadRequestError: no whole safetensors file, or tensors of other types.

    """
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        raise BadRequestError(
            f"the file's header claims {length} bytes; allowed: {MAX_HEADER_BYTES}", "body"
        )
    try:
        header = orjson.loads(data[_LENGTH_BYTES : _LENGTH_BYTES + length])
        tensors = deserialize(data)  # type: ignore[no-untyped-call]
    except (SafetensorError, ValueError, OverflowError) as error:
        raise BadRequestError(
            f"the body is not a whole safetensors file: {str(error)[:200]}", "body"
        ) from None
    return {name: _tensor(name, tensor) for name, tensor in tensors}, header.get(
        "__metadata__"
    ) or {}


def write_safetensors(content: VectorContent, metadata: Mapping[str, str] | None = None) -> bytes:
    """Return the file of a content."""
    return save(dict(content.tensors), dict(metadata) if metadata else None)


def from_bfloat16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return bfloat16 values, given as their bits, as float32: they are its upper half."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _tensor(name: str, tensor: dict[str, Any]) -> NDArray[np.floating[Any]]:
    kind = tensor["dtype"]
    if kind not in _FLOATS:
        raise BadRequestError(
            f"tensor {echo(name)} is of type {kind}; allowed: {', '.join(_FLOATS)}", "body"
        )
    values: NDArray[Any] = np.frombuffer(tensor["data"], _FLOATS[kind])
    values = from_bfloat16(values) if kind == "BF16" else values
    return values.reshape(tensor["shape"])
