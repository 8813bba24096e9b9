"""Arrays in an answer: base64 of little-endian bytes, or nested lists."""

from __future__ import annotations

from collections.abc import Callable
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

Encoder = Callable[[NDArray[Any]], Any]


def to_base64(array: NDArray[Any]) -> orjson.Fragment:
    """Return ``{"dtype", "shape", "data"}`` with the bytes in base64, C order."""
    # The name of a dtype takes numpy longer than encoding a thousand numbers.
    name = _NAMES.get(array.dtype)
    if name is None or not array.flags.c_contiguous:
        array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        name = array.dtype.name.encode()
    shape = b",".join([b"%d" % size for size in array.shape])
    return orjson.Fragment(
        b'{"dtype":"%s","shape":[%s],"data":"%s"}' % (name, shape, b64encode(array.data))
    )


def to_lists(array: NDArray[Any]) -> Any:
    """Return nested lists, -inf written as -9999.0."""
    if array.dtype.kind == "f":
        wide = array.astype(np.float32)  # float16 does not hold -9999
        array = np.where(np.isneginf(wide), np.float32(NEVER), wide)
    return array.tolist()


ENCODERS: dict[str, Encoder] = {"base64": to_base64, "json": to_lists}
"""By the name a request uses."""
