"""Vectors as GGUF control vectors, beside the gguf package that llama.cpp and repeng use."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import BadRequestError
from service.vectors.content import VectorContent
from service.vectors.gguf_file import read_gguf, write_gguf

ONE = VectorContent(
    {"layer.1": np.array([1, 2, 3], np.float32), "layer.11": np.array([4, 5, 6], np.float32)}
)
GOOD = write_gguf(ONE, "qwen2")


def written(folder: Path, tensors: dict[str, Any], architecture: str = "controlvector") -> bytes:
    """Return a file as repeng's ``export_gguf`` writes it, with some more keys."""
    path = folder / "vector.gguf"
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_string("controlvector.model_hint", "mistral")
    writer.add_uint32("controlvector.layer_count", len(tensors))
    writer.add_array("some.strings", ["a", "b"])
    writer.add_array("some.numbers", [1, 2, 3])
    writer.add_bool("some.flag", True)
    writer.add_float64("some.number", 0.5)
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def test_what_others_read_of_ours(tmp_path: Path) -> None:
    (tmp_path / "ours.gguf").write_bytes(GOOD)
    reader = gguf.GGUFReader(tmp_path / "ours.gguf")
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.architecture"] == "controlvector"
    assert fields["controlvector.model_hint"] == "qwen2"
    assert fields["controlvector.layer_count"] == 2
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    # Layer n, counted from 0, is direction.n there: both act on the output of block n.
    assert sorted(tensors) == ["direction.1", "direction.11"]
    assert tensors["direction.11"].tensor_type == gguf.GGMLQuantizationType.F32
    assert tensors["direction.11"].shape.tolist() == [3]
    assert tensors["direction.11"].data.tolist() == [4, 5, 6]


def test_what_we_read_of_others(tmp_path: Path) -> None:
    values = np.array([0.5, -1, 2], np.float32)
    data = written(tmp_path, {"direction.0": -values, "direction.7": values})
    tensors, hint = read_gguf(data)
    assert hint == "mistral"
    assert {name: found.tolist() for name, found in tensors.items()} == {
        "layer.0": [-0.5, 1, -2],
        "layer.7": [0.5, -1, 2],
    }


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_are_read(dtype: Any, tmp_path: Path) -> None:
    tensors, _ = read_gguf(written(tmp_path, {"direction.1": np.array([0.5, -1], dtype)}))
    assert tensors["layer.1"].tolist() == [0.5, -1]


@given(
    st.dictionaries(
        st.integers(1, 99),
        st.lists(st.floats(-9, 9, width=32), min_size=3, max_size=3),
        min_size=1,
        max_size=9,
    )
)
def test_out_and_in_again_is_the_same(layers: dict[int, list[float]]) -> None:
    content = VectorContent(
        {f"layer.{n}": np.array(values, np.float32) for n, values in layers.items()}
    )
    tensors, hint = read_gguf(write_gguf(content, "llama"))
    assert VectorContent(tensors).sha256 == content.sha256
    assert hint == "llama"


@pytest.mark.parametrize(
    ("tensors", "words"),
    [({"direction": [1.0]}, "no layers"), ({"layer.0": [1.0], "layer.1": [1.0]}, "layer 0")],
)
def test_what_a_control_vector_cannot_hold(tensors: dict[str, list[float]], words: str) -> None:
    content = VectorContent({name: np.array(v, np.float32) for name, v in tensors.items()})
    with pytest.raises(BadRequestError, match=words) as caught:
        write_gguf(content, "llama")
    assert caught.value.param == "format"


@pytest.mark.parametrize(
    ("tensors", "architecture", "words"),
    [
        ({"direction.1": np.ones(3, np.float32)}, "llama", ["'llama'", "'controlvector'"]),
        ({"direction.1": np.ones(3, np.int32)}, "controlvector", ["type 26", "F32"]),
        ({"direction.1": np.ones((2, 3), np.float32)}, "controlvector", ["[3, 2]"]),
        ({"direction.x": np.ones(3, np.float32)}, "controlvector", ["'direction.x'"]),
        ({"direction.-1": np.ones(3, np.float32)}, "controlvector", ["'direction.-1'"]),
        ({"blk.1": np.ones(3, np.float32)}, "controlvector", ["'blk.1'"]),
        ({}, "controlvector", ["no tensors", "'direction.<n>'"]),
    ],
)
def test_what_is_no_control_vector(
    tensors: dict[str, Any], architecture: str, words: list[str], tmp_path: Path
) -> None:
    with pytest.raises(BadRequestError) as caught:
        read_gguf(written(tmp_path, tensors, architecture))
    assert caught.value.param == "body"
    assert all(word in caught.value.message for word in words), caught.value.message


def header(version: int = 3, tensors: int = 0, keys: int = 0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys)


KEY = struct.pack("<Q", 1) + b"k"
LIES = {
    "nothing": b"GGUF",
    "version": header(1),
    "big-endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
    "tensors": header(tensors=1 << 60),
    "keys": header(keys=1 << 60),
    "length of a key": header(keys=1) + struct.pack("<Q", 1 << 60),
    "array": header(keys=1) + KEY + struct.pack("<IIQ", 9, 0, 1 << 60),
    "array of arrays": header(keys=1) + KEY + struct.pack("<IIQ", 9, 9, 3),
    "type": header(keys=1) + KEY + struct.pack("<I", 99),
    "key that is no text": header(keys=1) + struct.pack("<Q", 1) + b"\xff",
}


def test_more_entries_than_a_control_vector_needs_are_refused() -> None:
    strings = struct.pack("<IIQ", 9, 8, 40_000) + bytes(8 * 40_000)
    keys = b"".join(struct.pack("<Q", 1) + key + strings for key in (b"a", b"b"))
    with pytest.raises(BadRequestError, match="40000 elements of an array"):
        read_gguf(header(keys=2) + keys)


@pytest.mark.parametrize("data", LIES.values(), ids=LIES)
def test_lies_are_refused_at_once(data: bytes) -> None:
    with pytest.raises(BadRequestError) as caught:
        read_gguf(data)
    assert "GGUF file" in caught.value.message


# The last tensor's 12 bytes are padded to 32, which nobody misses.
@pytest.mark.parametrize("length", range(4, len(GOOD) - 20, 3))
def test_a_file_cut_short_is_refused(length: int) -> None:
    with pytest.raises(BadRequestError):
        read_gguf(GOOD[:length])


@given(st.integers(4, len(GOOD) - 1), st.binary(min_size=1, max_size=8))
def test_damage_is_refused_or_makes_other_tensors(at: int, damage: bytes) -> None:
    try:
        tensors, _ = read_gguf(GOOD[:at] + damage + GOOD[at + len(damage) :])
    except BadRequestError:
        return
    assert all(values.dtype.kind == "f" and values.ndim == 1 for values in tensors.values())
