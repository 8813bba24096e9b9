"""The header of a GGUF file: its metadata, and where each tensor begins.

Read here and not by ``gguf.GGUFReader``, which trusts the lengths in a file (an array that claims
2**60 elements keeps it busy for ever) and takes seconds for the 98,000 strings of a tokenizer.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from service.errors import BadRequestError, echo

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_ALIGNMENT = 32
_MAX_ALIGNMENT = 1 << 16
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?",
            10: "Q", 11: "q", 12: "d"}  # fmt: skip


@dataclass(frozen=True)
class TensorInfo:
    """Name, dimensions (the innermost first), GGML type and first byte of a tensor."""

    name: str
    shape: list[int]
    kind: int
    start: int


@dataclass(frozen=True)
class GgufHeader:
    """Metadata by key, arrays as lists, and the tensors in the order of the file."""

    fields: dict[str, Any]
    tensors: list[TensorInfo]


def read_header(data: bytes, max_entries: int) -> GgufHeader:
    """Return the header of a whole GGUF file.

    Args:
        data: the file.
        max_entries: most keys, tensors, dimensions and array elements that it may claim, together.

    Raises:
        BadRequestError: not a whole GGUF file, or one that claims more than ``max_entries``.

    """
    try:
        return _Cursor(data, max_entries).header()
    except (struct.error, UnicodeDecodeError) as error:
        raise BadRequestError(
            f"the body is not a whole GGUF file: {str(error)[:200]}", "body"
        ) from None


class _Cursor:
    """Reads a GGUF file from its beginning; ``struct.error`` beyond its end."""

    def __init__(self, data: bytes, max_entries: int) -> None:
        self._data = data
        self._at = len(MAGIC)
        self._max_entries = max_entries
        self._entries_left = max_entries

    def header(self) -> GgufHeader:
        version = self._number("I")
        if version not in _VERSIONS:
            raise BadRequestError(
                f"the GGUF file is of version {version}; allowed: {_VERSIONS}, little-endian",
                "body",
            )
        tensors, keys = self._count("tensors"), self._count("keys")
        fields = {self._string(): self._value() for _ in range(keys)}
        infos = [self._info() for _ in range(tensors)]
        alignment = fields.get("general.alignment", _ALIGNMENT)
        if not isinstance(alignment, int) or not 1 <= alignment <= _MAX_ALIGNMENT:
            raise BadRequestError(f"general.alignment is {echo(alignment)}", "body")
        start = -(-self._at // alignment) * alignment
        return GgufHeader(
            fields,
            [TensorInfo(name, shape, kind, start + at) for name, shape, kind, at in infos],
        )

    def _number(self, code: str) -> Any:
        (value,) = struct.unpack_from(f"<{code}", self._data, self._at)
        self._at += struct.calcsize(f"<{code}")
        return value

    def _count(self, what: str) -> int:
        count = int(self._number("I" if what == "dimensions" else "Q"))
        self._entries_left -= count
        if self._entries_left < 0:
            raise BadRequestError(
                f"the GGUF file claims {count} {what}; allowed: {self._max_entries} with all else",
                "body",
            )
        return count

    def _take(self, length: int) -> bytes:
        if length > len(self._data) - self._at:
            left = len(self._data) - self._at
            raise struct.error(f"{length} bytes are claimed, {left} are left")
        self._at += length
        return self._data[self._at - length : self._at]

    def _string(self) -> str:
        return self._take(self._number("Q")).decode()

    def _value(self) -> Any:
        kind = self._number("I")
        if kind == _STRING:
            return self._string()
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind != _ARRAY:
            raise BadRequestError(f"the GGUF file holds a value of unknown type {kind}", "body")
        element, length = self._number("I"), self._count("elements of an array")
        if element in _SCALARS:
            code = f"<{length}{_SCALARS[element]}"
            return list(struct.unpack(code, self._take(struct.calcsize(code))))
        if element == _STRING:
            return [self._string() for _ in range(length)]
        raise BadRequestError(f"the GGUF file holds an array of type {element}", "body")

    def _info(self) -> tuple[str, list[int], int, int]:
        name = self._string()
        shape = [self._number("Q") for _ in range(self._count("dimensions"))]
        return name, shape, self._number("I"), self._number("Q")
