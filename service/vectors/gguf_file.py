"""Vectors of the residual stream as GGUF control vectors of llama.cpp and repeng.

Such a file has ``general.architecture`` "controlvector", ``controlvector.model_hint`` (the
architecture of the model), ``controlvector.layer_count`` (how many layers it holds) and a
float32 tensor ``direction.<N>`` ``[hidden]`` for each layer.

N is our n: llama.cpp adds ``direction.N`` to the output of block N counted from 0
(``build_cvec`` after the block's last residual addition), repeng to the output of
``model.layers[N]``, we add ``layer.n`` to the output of decoder layer n counted from 0. But
llama.cpp keeps its data from layer 1 on and refuses a file with ``direction.0``, so a vector with
``layer.0`` cannot be exported; from repeng, which allows it, it can be imported.

Files of others are read here and not by ``gguf.GGUFReader``: it trusts the lengths in a file,
and an array that claims 2**60 elements keeps it busy for ever.
"""

from __future__ import annotations

import re
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import BadRequestError, echo
from service.vectors.content import VectorContent
from service.vectors.safetensors_file import from_bfloat16

ARCHITECTURE = "controlvector"
MODEL_HINT = f"{ARCHITECTURE}.model_hint"
LAYER_COUNT = f"{ARCHITECTURE}.layer_count"
MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_ALIGNMENT = 32
_MAX_ENTRIES = 1 << 16
"""Most keys, tensors, dimensions and array elements that a file may claim, all together."""
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?",
            10: "Q", 11: "q", 12: "d"}  # fmt: skip
_FLOATS = {0: ("F32", "<f4"), 1: ("F16", "<f2"), 28: ("F64", "<f8"), 30: ("BF16", "<u2")}
_DIRECTION = re.compile(r"direction\.(0|[1-9][0-9]{0,3})")


def read_gguf(data: bytes) -> tuple[dict[str, NDArray[np.floating[Any]]], str | None]:
    """Return the tensors ``layer.<n>`` of a control vector, and its model hint.

    Raises:
        BadRequestError: no whole GGUF file, not a control vector, or tensors of other types.

    """
    try:
        return _read(_Cursor(data))
    except (struct.error, UnicodeDecodeError) as error:
        raise BadRequestError(
            f"the body is not a whole GGUF file: {str(error)[:200]}", "body"
        ) from None


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


class _Cursor:
    """Reads a GGUF file from its beginning; ``struct.error`` beyond its end."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = len(MAGIC)
        self._entries_left = _MAX_ENTRIES

    def number(self, code: str) -> Any:
        (value,) = struct.unpack_from(f"<{code}", self.data, self.at)
        self.at += struct.calcsize(f"<{code}")
        return value

    def count(self, what: str) -> int:
        count = int(self.number("I" if what == "dimensions" else "Q"))
        self._entries_left -= count
        if self._entries_left < 0:
            raise BadRequestError(
                f"the GGUF file claims {count} {what}; allowed: {_MAX_ENTRIES} with all else",
                "body",
            )
        return count

    def string(self) -> str:
        return self.take(self.number("Q")).decode()

    def take(self, length: int) -> bytes:
        if length > len(self.data) - self.at:
            raise struct.error(f"{length} bytes are claimed, {len(self.data) - self.at} are left")
        self.at += length
        return self.data[self.at - length : self.at]

    def value(self) -> Any:
        """Return a metadata value; an array is passed over and None."""
        kind = self.number("I")
        if kind == _STRING:
            return self.string()
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind != _ARRAY:
            raise BadRequestError(f"the GGUF file holds a value of unknown type {kind}", "body")
        element, length = self.number("I"), self.count("elements of an array")
        if element in _SCALARS:
            self.take(length * struct.calcsize(f"<{_SCALARS[element]}"))
        elif element == _STRING:
            for _ in range(length):
                self.string()
        else:
            raise BadRequestError(f"the GGUF file holds an array of type {element}", "body")
        return None


def _read(cursor: _Cursor) -> tuple[dict[str, NDArray[np.floating[Any]]], str | None]:
    version = cursor.number("I")
    if version not in _VERSIONS:
        raise BadRequestError(
            f"the GGUF file is of version {version}; allowed: {_VERSIONS}, little-endian", "body"
        )
    tensors, keys = cursor.count("tensors"), cursor.count("keys")
    fields = {cursor.string(): cursor.value() for _ in range(keys)}
    if fields.get("general.architecture") != ARCHITECTURE:
        raise BadRequestError(
            f"the GGUF file is a {echo(fields.get('general.architecture'))}; allowed: "
            f"{ARCHITECTURE!r}",
            "body",
        )
    infos = [_info(cursor) for _ in range(tensors)]
    alignment = fields.get("general.alignment", _ALIGNMENT)
    if not isinstance(alignment, int) or not 1 <= alignment <= _MAX_ENTRIES:
        raise BadRequestError(f"general.alignment is {echo(alignment)}", "body")
    start = -(-cursor.at // alignment) * alignment
    found: dict[str, NDArray[np.floating[Any]]] = {}
    for name, shape, kind, offset in infos:
        match = _DIRECTION.fullmatch(name)
        if match is None or f"layer.{match[1]}" in found:
            raise BadRequestError(
                f"tensor {echo(name)} does not belong in a control vector; allowed: one "
                "'direction.<n>' for each layer",
                "body",
            )
        found[f"layer.{match[1]}"] = _tensor(cursor.data, name, shape, kind, start + offset)
    hint = fields.get(MODEL_HINT)
    return found, hint if isinstance(hint, str) else None


def _info(cursor: _Cursor) -> tuple[str, list[int], int, int]:
    name = cursor.string()
    shape = [cursor.number("Q") for _ in range(cursor.count("dimensions"))]
    return name, shape, cursor.number("I"), cursor.number("Q")


def _tensor(
    data: bytes, name: str, shape: list[int], kind: int, offset: int
) -> NDArray[np.floating[Any]]:
    if kind not in _FLOATS:
        allowed = ", ".join(told for told, _ in _FLOATS.values())
        raise BadRequestError(
            f"tensor {echo(name)} is of GGUF type {kind}; allowed: {allowed}", "body"
        )
    if len(shape) != 1:
        raise BadRequestError(
            f"tensor {echo(name)} has shape {echo(shape)}; allowed: one dimension", "body"
        )
    told, code = _FLOATS[kind]
    size = np.dtype(code).itemsize
    if offset + shape[0] * size > len(data):
        raise BadRequestError(
            f"the body is not a whole GGUF file: tensor {echo(name)} ends beyond it", "body"
        )
    values: NDArray[Any] = np.frombuffer(data, code, shape[0], offset)
    return from_bfloat16(values) if told == "BF16" else values
