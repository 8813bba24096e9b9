"""Arrays in an answer: base64 of little-endian bytes, or nested lists."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from pybase64 import b64encode

NEVER = -9999.0
"""The number for a log-probability of -inf in JSON, as in OpenAI's API."""

_NAMES = {np.dtype(f"<{code}"): name for code, name in {
    "f4": b"float32", "f2": b"float16", "i4": b"int32"
}.items()}  # fmt: skip
"""The dtypes of answers, little-endian."""


def to_base64(array: NDArray[Any]) -> bytes:
    """Return ``{"dtype", "shape", "data"}`` as JSON, with the bytes in base64, C order."""
    if array.dtype not in _NAMES or not array.flags.c_contiguous:
        array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return tensor_text(array, b64encode(array.data))


def tensor_text(array: NDArray[Any], data: bytes) -> bytes:
    """Return ``{"dtype", "shape", "data"}`` of an array as JSON, with its data as given."""
    return b"".join((_head(array.dtype, array.shape), data, b'"}'))


@lru_cache(maxsize=1024)
def _head(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Return the JSON before the data, the same in each event of a stream."""
    sizes = b",".join([b"%d" % size for size in shape])
    name = _NAMES.get(dtype) or dtype.name.encode()
    return b'{"dtype":"%s","shape":[%s],"data":"' % (name, sizes)


def to_lists(array: NDArray[Any]) -> bytes:
    """Return nested lists as JSON, -inf written as -9999.0."""
    if array.dtype.kind == "f":
        wide = array.astype(np.float32)  # float16 does not hold -9999
        array = np.where(np.isneginf(wide), np.float32(NEVER), wide)
    return orjson.dumps(np.ascontiguousarray(array), option=orjson.OPT_SERIALIZE_NUMPY)


BLOCK = 192 << 10
"""Bytes of an array per piece; divisible by 3, so that base64 pads only the last piece."""


def base64_pieces(blocks: Sequence[NDArray[Any]]) -> Iterator[bytes]:
    """Yield :func:`to_base64` of the concatenated blocks ``[n, ...]`` in pieces."""
    first = blocks[0]
    count = sum(map(len, blocks))
    dtype = first.dtype.newbyteorder("<")
    yield _head(dtype, (count, *first.shape[1:]))
    rest = b""
    for block in blocks:
        data = np.ascontiguousarray(block, dtype=dtype).data.cast("B")
        for at in range(0, len(data), BLOCK):
            piece = rest + data[at : at + BLOCK]
            whole = len(piece) - len(piece) % 3
            rest = piece[whole:]
            yield b64encode(piece[:whole])
    yield b64encode(rest) + b'"}'


def list_pieces(blocks: Sequence[NDArray[Any]]) -> Iterator[bytes]:
    """Yield :func:`to_lists` of the concatenated blocks ``[n, ...]`` in pieces."""
    before = b"["
    for block in blocks:
        step = max(1, BLOCK // max(1, block[:1].nbytes))
        for at in range(0, len(block), step):
            part = block[at : at + step]
            if part.nbytes > BLOCK and part.ndim > 1:  # one, which is itself long
                yield before
                yield from list_pieces([part[0]])
            else:
                yield before + to_lists(part)[1:-1]
            before = b","
    yield b"[]" if before == b"[" else b"]"


PIECES: dict[str, Callable[[Sequence[NDArray[Any]]], Iterator[bytes]]] = {
    "base64": base64_pieces,
    "json": list_pieces,
}
"""By the name a request uses."""
WRITERS: dict[str, Callable[[NDArray[Any]], bytes]] = {"base64": to_base64, "json": to_lists}
"""By the name a request uses."""
