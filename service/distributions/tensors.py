"""Arrays in an answer: base64 of little-endian bytes, or nested lists."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from pybase64 import b64encode

NEVER = -9999.0
"""What JSON says for a log-probability of -inf, as OpenAI's API does."""

_NAMES = {np.dtype(f"<{code}"): name for code, name in {
    "f4": b"float32", "f2": b"float16", "i4": b"int32"
}.items()}  # fmt: skip
"""The types that answers are made of, little-endian."""


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
    """Return what stands before the data, the same in each event of a stream."""
    sizes = b",".join([b"%d" % size for size in shape])
    name = _NAMES.get(dtype) or dtype.name.encode()
    return b'{"dtype":"%s","shape":[%s],"data":"' % (name, sizes)


def to_lists(array: NDArray[Any]) -> bytes:
    """Return nested lists as JSON, -inf written as -9999.0."""
    if array.dtype.kind == "f":
        wide = array.astype(np.float32)  # float16 does not hold -9999
        array = np.where(np.isneginf(wide), np.float32(NEVER), wide)
    return orjson.dumps(np.ascontiguousarray(array), option=orjson.OPT_SERIALIZE_NUMPY)


WRITERS: dict[str, Callable[[NDArray[Any]], bytes]] = {"base64": to_base64, "json": to_lists}
"""By the name a request uses."""
