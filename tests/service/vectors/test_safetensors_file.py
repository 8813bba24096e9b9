"""Vectors as safetensors files: what is read, what is refused, what is written."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save as save_torch

from service.errors import BadRequestError
from service.vectors.content import VectorContent
from service.vectors.safetensors_file import (
    MAX_HEADER_BYTES,
    looks_like_safetensors,
    read_safetensors,
    write_safetensors,
)
from tests.unit_support import safetensors

GOOD = safetensors(direction=[1.0, -2.0, 0.0, 2.0])


def raw(header: object, data: bytes = b"") -> bytes:
    """Return a safetensors file with any header, true or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def tensor(dtype: str = "F32", shape: Any = (4,), end: int = 16) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_all_floats_are_read_as_torch_wrote_them(dtype: torch.dtype) -> None:
    values = torch.tensor([0.1, -3e4, 1e-5, 0.0, torch.inf]).to(dtype)
    tensors, metadata = read_safetensors(save_torch({"layer.3": values}, {"who": "torch"}))
    assert metadata == {"who": "torch"}
    assert tensors["layer.3"].tolist() == values.double().tolist()


@given(st.integers(0, 2**16 - 1))
def test_bfloat16_is_what_torch_says(bits: int) -> None:
    file = raw({"a": tensor("BF16", [1], 2)}, bits.to_bytes(2, "little"))
    (values,) = read_safetensors(file)[0].values()
    expected = torch.tensor([bits], dtype=torch.uint16).view(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(values, expected)


def test_what_is_written_is_read() -> None:
    content = VectorContent({"layer.3": np.array([1, 2], np.float32)})
    metadata = {"format": "x", "made_from": '{"text": "é"}'}
    tensors, told = read_safetensors(write_safetensors(content, metadata))
    assert told == metadata
    assert VectorContent(tensors).sha256 == content.sha256
    assert read_safetensors(write_safetensors(content))[1] == {}


FOREIGN = {
    "cut": GOOD[:-1],
    "longer": GOOD + b"\0",
    "header beyond the file": (1 << 19).to_bytes(8, "little") + GOOD[8:],
    "header beyond memory": (1 << 63).to_bytes(8, "little") + GOOD[8:],
    "header too long": raw(b"{" + b" " * MAX_HEADER_BYTES + b"}"),
    "header too short": (12).to_bytes(8, "little") + GOOD[8:],
    "header of nothing": bytes(8) + GOOD[8:],
    "deep": raw(b"{" + b'"a":[' * 10_000),
    "offsets beyond the file": raw({"direction": tensor(end=1 << 40)}, bytes(16)),
    "offsets backwards": raw({"direction": {**tensor(), "data_offsets": [16, 0]}}, bytes(16)),
    "overlap": raw({"layer.1": tensor(), "layer.2": tensor()}, bytes(16)),
    "shape larger than data": raw({"direction": tensor(shape=[1 << 40])}, bytes(16)),
    "shape that overflows": raw({"direction": tensor(shape=[1 << 62, 1 << 62])}, bytes(16)),
    "negative shape": raw({"direction": tensor(shape=[-4])}, bytes(16)),
    "unknown type": raw({"direction": tensor("F31")}, bytes(16)),
    "metadata of numbers": raw({"__metadata__": {"a": 1}, "direction": tensor()}, bytes(16)),
    "metadata of text": raw({"__metadata__": "a", "direction": tensor()}, bytes(16)),
}


@pytest.mark.parametrize("data", FOREIGN.values(), ids=FOREIGN)
def test_what_is_no_whole_file_is_refused(data: bytes) -> None:
    with pytest.raises(BadRequestError) as caught:
        read_safetensors(data)
    assert caught.value.param == "body"
    assert "safetensors" in caught.value.message or "claims" in caught.value.message
    assert len(caught.value.message) < 300


OTHER_TYPES = {"I32": 16, "U8": 4, "BOOL": 4, "F8_E4M3": 4, "C64": 32, "I64": 32}


@pytest.mark.parametrize("dtype", OTHER_TYPES)
def test_other_types_are_refused_by_name(dtype: str) -> None:
    size = OTHER_TYPES[dtype]
    with pytest.raises(BadRequestError) as caught:
        read_safetensors(raw({"direction": tensor(dtype, end=size)}, bytes(size)))
    assert dtype in caught.value.message


@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=3), st.booleans())
def test_damage_is_refused_or_makes_other_tensors(at: int, damage: bytes, insert: bool) -> None:
    data = GOOD[:at] + damage + GOOD[at if insert else at + len(damage) :]
    try:
        tensors, _ = read_safetensors(data)
    except BadRequestError:
        return
    assert all(values.dtype.kind == "f" for values in tensors.values())


@given(st.binary(max_size=100))
def test_any_bytes_are_a_file_or_a_bad_request(data: bytes) -> None:
    for tried in (data, raw(data), raw(b"{" + data, bytes(16))):
        if tried == raw(b"{}"):
            continue
        with pytest.raises(BadRequestError):
            read_safetensors(tried)


def test_how_a_file_begins() -> None:
    assert looks_like_safetensors(GOOD)
    for other in (b"", b"{", b"GGUF" + bytes(20), b"PK\x03\x04" + bytes(20)):
        assert not looks_like_safetensors(other)
