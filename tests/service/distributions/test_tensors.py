"""Arrays in an answer: base64 and lists say the same."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.distributions import tensors
from service.distributions.tensors import NEVER, PIECES, WRITERS, to_base64, to_lists


def decoded(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array as a client reads it from the base64 form."""
    tensor = json.loads(to_base64(array))
    assert set(tensor) == {"dtype", "shape", "data"}
    little = np.dtype(tensor["dtype"]).newbyteorder("<")
    return np.frombuffer(b64decode(tensor["data"], validate=True), little).reshape(tensor["shape"])


ARRAYS: list[NDArray[Any]] = [
    np.array([[0.1, -np.inf], [-2.5, 3e-38]], np.float32),
    np.array([[0.1, -np.inf], [-2.5, 6e-5]], np.float16),
    np.array([[1, -2], [2**31 - 1, -(2**31)]], np.int32),
    np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    np.zeros(0, np.float32),
    np.zeros((0, 3), np.int32),
    np.zeros((3, 0), np.float32),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{a.shape}")
def test_base64_is_the_same_array(array: NDArray[Any]) -> None:
    back = decoded(array)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert np.array_equal(back, array)


def test_base64_is_little_endian_in_c_order() -> None:
    tensor = json.loads(to_base64(np.array([1, 256], np.int32)))
    assert b64decode(tensor["data"]) == b"\x01\0\0\0\0\x01\0\0"
    wide = np.arange(12, dtype=np.int32).reshape(3, 4)
    for view in (wide.T, wide[:, 1], wide[::2], wide.astype(">i4"), np.asfortranarray(wide)):
        assert np.array_equal(decoded(view), view)
        assert json.loads(to_base64(view))["dtype"] == "int32"


def test_lists_are_the_same_numbers() -> None:
    for array in ARRAYS[2:]:
        lists = json.loads(to_lists(array))
        assert np.array_equal(np.array(lists, array.dtype).reshape(array.shape), array)
    # As short as float32 allows.
    assert to_lists(np.array([0.1], np.float32)) == b"[0.1]"
    assert to_lists(np.arange(6, dtype=np.int32).reshape(2, 3).T) == b"[[0,3],[1,4],[2,5]]"


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_lists_say_minus_9999_for_minus_infinity(dtype: type[np.floating[Any]]) -> None:
    # float16 has no -9999: its neighbours are -9992 and -10000.
    array = np.array([[-np.inf, -1.5], [0.0, -np.inf]], dtype)
    assert json.loads(to_lists(array)) == [[-9999.0, -1.5], [0.0, -9999.0]]
    assert np.isneginf(array[0, 0])  # what was encoded is not changed


def test_writers_are_those_that_a_request_can_name() -> None:
    assert NEVER == -9999.0
    assert {"base64": to_base64, "json": to_lists} == WRITERS


@pytest.mark.parametrize("block", [3, 48, 192 << 10])
@pytest.mark.parametrize(
    "array", [a for a in ARRAYS if a.size], ids=lambda a: f"{a.dtype}{a.shape}"
)
@pytest.mark.parametrize("encoding", WRITERS)
def test_pieces_are_the_whole(
    encoding: str, array: NDArray[Any], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensors, "BLOCK", block)
    whole = WRITERS[encoding](array)
    for blocks in ([array], [array[:1], array[1:]]):
        assert b"".join(PIECES[encoding](blocks)) == whole
