"""Vectors as files: what is read, what is refused, and what the refusal says."""

from __future__ import annotations

import hashlib
import json
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import BadRequestError
from service.vectors.content import from_direction, parse
from tests.unit_support import safetensors

HIDDEN = 4
GOOD = safetensors(direction=[1.0, -2.0, 0.0, 2.0])


def raw(header: object, data: bytes = b"") -> bytes:
    """Return a safetensors file with any header, true or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def tensor(dtype: str = "F32", shape: Any = (HIDDEN,), end: int = 16) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}


def test_a_direction_is_read() -> None:
    content = parse(GOOD, HIDDEN)
    assert content.sha256 == hashlib.sha256(GOOD).hexdigest()
    assert content.data == GOOD
    assert not content.residual
    assert content.read_by_unembedding.tolist() == [1.0, -2.0, 0.0, 2.0]
    assert content.describe() == {
        "sha256": content.sha256,
        "bytes": len(GOOD),
        "space": "unembedding",
        "hidden_size": HIDDEN,
        "layers": [],
        "norm": 3.0,
    }


def test_layers_are_read_by_number_and_the_last_is_for_the_unembedding() -> None:
    content = parse(safetensors(layer_9=[9] * 4, layer_10=[10] * 4, layer_0=[1] * 4), HIDDEN)
    assert content.residual
    assert sorted(content.layers) == [0, 9, 10]
    assert content.read_by_unembedding.tolist() == [10.0] * 4
    description = content.describe()
    assert description["layers"] == [0, 9, 10]
    assert description["space"] == "residual"
    assert description["norm"] == pytest.approx((4 * (81 + 100 + 1)) ** 0.5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_any_float_becomes_float32(dtype: type[np.floating[Any]]) -> None:
    content = parse(safetensors(direction=np.array([0.5, -1.0, 0.0, 3.0], dtype)), HIDDEN)
    assert content.read_by_unembedding.dtype == np.float32
    assert content.read_by_unembedding.tolist() == [0.5, -1.0, 0.0, 3.0]


def test_a_direction_made_here_is_a_vector() -> None:
    content = from_direction(np.array([1.0, 2.0, 3.0, 4.0], np.float32))
    assert parse(content.data, HIDDEN).sha256 == content.sha256
    assert content.read_by_unembedding.tolist() == [1.0, 2.0, 3.0, 4.0]


def test_a_file_may_carry_metadata() -> None:
    data = raw({"__metadata__": {"made": "by hand"}, "direction": tensor()}, b"\0\0\x80?" * 4)
    assert parse(data, HIDDEN).read_by_unembedding.tolist() == [1.0] * 4


FOREIGN = {
    "empty": b"",
    "short": b"\x08",
    "text": b"not a vector at all",
    "pickle": pickle.dumps({"direction": [1.0, 2.0, 3.0, 4.0]}),
    "zip": b"PK\x03\x04" + bytes(60),
    "cut": GOOD[:-1],
    "longer": GOOD + b"\0",
    "header beyond the file": (1 << 20).to_bytes(8, "little") + GOOD[8:],
    "header beyond memory": (1 << 63).to_bytes(8, "little") + GOOD[8:],
    "header of nothing": bytes(8) + GOOD[8:],
    "no object": raw([1, 2]),
    "deep": raw(b"[" * 10_000),
    "offsets beyond the file": raw({"direction": tensor(end=1 << 40)}, bytes(16)),
    "offsets backwards": raw({"direction": {**tensor(), "data_offsets": [16, 0]}}, bytes(16)),
    "shape larger than data": raw({"direction": tensor(shape=[1 << 40])}, bytes(16)),
    "shape that overflows": raw({"direction": tensor(shape=[1 << 62, 1 << 62])}, bytes(16)),
    "negative shape": raw({"direction": tensor(shape=[-4])}, bytes(16)),
    "unknown type": raw({"direction": tensor("F31")}, bytes(16)),
    "bfloat16": raw({"direction": tensor("BF16", end=8)}, bytes(8)),
    "float8": raw({"direction": tensor("F8_E4M3", end=4)}, bytes(4)),
}


@pytest.mark.parametrize("data", FOREIGN.values(), ids=FOREIGN)
def test_what_is_no_safetensors_file_is_refused(data: bytes) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse(data, HIDDEN)
    assert caught.value.param == "body"
    assert "safetensors file of F32, F16, F64" in caught.value.message
    assert len(caught.value.message) < 300


NOT_VECTORS = [
    (safetensors(direction=np.arange(4, dtype=np.int32)), ["'direction'", "int32", "F32"]),
    (safetensors(direction=np.ones(4, bool)), ["'direction'", "bool", "F32"]),
    (safetensors(direction=[1.0] * 3), ["'direction'", "[3]", "[4]"]),
    (safetensors(direction=np.ones((1, 4), np.float32)), ["'direction'", "[1, 4]", "[4]"]),
    (safetensors(direction=np.float32(1) * np.ones((), np.float32)), ["[]", "[4]"]),
    (safetensors(direction=[1, 2, 3, np.nan]), ["'direction'", "finite"]),
    (safetensors(layer_3=[1, 2, 3, np.inf]), ["'layer.3'", "finite"]),
    (safetensors(direction=np.array([1e300, 1, 1, 1])), ["'direction'", "finite"]),
    (safetensors(direction=[0.0] * 4), ["'direction'", "zero"]),
    (safetensors(layer_1=[1.0] * 4, layer_2=[0.0] * 4), ["'layer.2'", "zero"]),
    (safetensors(direction=np.array([1e-300, 0, 0, 0])), ["'direction'", "zero"]),
    (raw({}), ["[]", "'direction'", "'layer.<n>'"]),
    (safetensors(weights=[1.0] * 4), ["'weights'", "'direction'"]),
    (safetensors(direction=[1.0] * 4, layer_1=[1.0] * 4), ["'layer.1'", "one tensor"]),
    (safetensors(direction=[1.0] * 4, more=[1.0] * 4), ["'more'", "one tensor"]),
    (safetensors(layer_01=[1.0] * 4), ["'layer.01'", "'layer.<n>'"]),
    (safetensors(layer_10000=[1.0] * 4), ["'layer.10000'"]),
    (safetensors(layer_x=[1.0] * 4), ["'layer.x'"]),
    (safetensors(**{"x" * 5000: [1.0] * 4}), ["xxx", "…"]),
]


@pytest.mark.parametrize(("data", "words"), NOT_VECTORS, ids=[str(w) for _, w in NOT_VECTORS])
def test_a_file_that_is_no_vector_is_refused(data: bytes, words: list[str]) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse(data, HIDDEN)
    assert caught.value.param == "body"
    assert all(word in caught.value.message for word in words), caught.value.message
    assert len(caught.value.message) < 500


@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=3), st.booleans())
def test_damage_is_refused_or_makes_another_content(at: int, damage: bytes, insert: bool) -> None:
    data = GOOD[:at] + damage + GOOD[at if insert else at + len(damage) :]
    try:
        content = parse(data, HIDDEN)
    except BadRequestError:
        return
    assert content.sha256 == hashlib.sha256(data).hexdigest()
    assert np.isfinite(content.read_by_unembedding).all()
    assert content.read_by_unembedding.shape == (HIDDEN,)


@given(st.binary(max_size=100))
def test_any_bytes_are_a_vector_or_a_bad_request(data: bytes) -> None:
    for tried in (data, raw(data), raw(data, bytes(16))):
        with pytest.raises(BadRequestError):
            parse(tried, HIDDEN)
