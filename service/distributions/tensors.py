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

Encoder = Callable[[NDArray[Any]], Any]


def to_base64(array: NDArray[Any]) -> orjson.Fragment:
    """Return ``{"dtype", "shape", "data"}`` with the bytes in base64, C order."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    head = b'{"dtype":"%s","shape":%s,"data":"' % (
        array.dtype.name.encode(),
        orjson.dumps(array.shape),
    )
    return orjson.Fragment(head + b2a_base64(little.data, newline=False) + b'"}')


def to_lists(array: NDArray[Any]) -> Any:
    """Return nested lists, -inf written as -9999.0."""
    if array.dtype.kind == "f":
        wide = array.astype(np.float32)  # float16 does not hold -9999
        array = np.where(np.isneginf(wide), np.float32(NEVER), wide)
    return array.tolist()


ENCODERS: dict[str, Encoder] = {"base64": to_base64, "json": to_lists}
"""By the name a request uses."""
