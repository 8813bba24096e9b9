"""Arrays in an answer: base64 of little-endian bytes, or nested lists."""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

NEVER = -9999.0
"""What JSON says for a log-probability of -inf, as OpenAI's API does."""

_NAMES = {np.dtype(f"<{code}"): name for code, name in {
    "f4": b"float32", "f2": b"float16", "i4": b"int32"
}.items()}  # fmt: skip
"""The types that answers are made of, little-endian."""

Encoder = Callable[[NDArray[Any]], Any]


def to_base64(array: NDArray[Any]) -> orjson.Fragment:
    """Return ``{"dtype", "shape", "data"}`` with the bytes in base64, C order."""
    if array.dtype not in _NAMES or not array.flags.c_contiguous:
        array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    shape = b",".join([b"%d" % size for size in array.shape])
    # The name of a dtype takes numpy longer than encoding a thousand numbers.
    name = _NAMES.get(array.dtype) or array.dtype.name.encode()
    data = b2a_base64(array.data, newline=False)
    return orjson.Fragment(b'{"dtype":"%s","shape":[%s],"data":"%s"}' % (name, shape, data))


def to_lists(array: NDArray[Any]) -> Any:
    """Return nested lists, -inf written as -9999.0."""
    if array.dtype.kind == "f":
        wide = array.astype(np.float32)  # float16 does not hold -9999
        array = np.where(np.isneginf(wide), np.float32(NEVER), wide)
    return array.tolist()


ENCODERS: dict[str, Encoder] = {"base64": to_base64, "json": to_lists}
"""By the name a request uses."""
