"""Vectors in and out, in both formats."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import BadRequestError, UnsupportedMediaError
from service.vectors.content import VectorContent, check
from service.vectors.exchange import NewVector, export, read_upload
from service.vectors.gguf_file import write_gguf
from service.vectors.safetensors_file import read_safetensors, write_safetensors
from service.vectors.store import StoredName
from tests.unit_support import model_facts, safetensors

MODEL = model_facts()
LAYERS = check({"layer.3": np.array([1, 2, 3, 4]), "layer.5": np.array([4.5, 3, 2, 1])}, MODEL)
DIRECTION = check({"direction": np.array([1, 2, 3, 4])}, MODEL)


def stored(content: VectorContent, model: str | None = "tiny") -> StoredName:
    made_from = {"text": " océan", "token_ids": [1]}
    return StoredName("a", content.sha256, 7, made_from, model, 9, content.summary)


def test_safetensors_carry_their_story_out_and_in_again() -> None:
    file = export(stored(LAYERS), LAYERS, "safetensors", MODEL)
    _, metadata = read_safetensors(file)
    made_from = metadata.pop("made_from")
    created_by = metadata.pop("created_by")
    assert metadata == {
        "format": "sensefield.vector",
        "version": "1",
        "layers": "layer.<n> is added after decoder layer n, counted from 0",
        "sha256": LAYERS.sha256,
        "model": "tiny",
        "created": "7",
    }
    assert orjson.loads(made_from) == {"text": " océan", "token_ids": [1]}
    assert created_by.startswith("sensefield ")
    made = read_upload(file, MODEL)
    assert made.content.sha256 == LAYERS.sha256
    assert made.model == "tiny"
    assert made.made_from == {
        "upload": "safetensors",
        "origin": {"text": " océan", "token_ids": [1]},
    }


def test_a_model_that_is_not_known_is_left_out() -> None:
    _, metadata = read_safetensors(export(stored(LAYERS, None), LAYERS, "safetensors", MODEL))
    assert "model" not in metadata


@pytest.mark.parametrize("content", [LAYERS, DIRECTION], ids=["layers", "direction"])
def test_import_of_export_is_the_same_vector(content: VectorContent) -> None:
    file = export(stored(content), content, "safetensors", MODEL)
    assert read_upload(file, MODEL).content.sha256 == content.sha256


def test_a_control_vector_out_and_in_again() -> None:
    made = read_upload(export(stored(LAYERS), LAYERS, "gguf", MODEL), MODEL)
    assert made == NewVector(made.content, {"upload": "gguf", "model_hint": "llama"}, None)
    assert made.content.sha256 == LAYERS.sha256
    with pytest.raises(BadRequestError, match="no layers"):
        export(stored(DIRECTION), DIRECTION, "gguf", MODEL)


@pytest.mark.parametrize(
    "metadata",
    [
        {"made_from": '{"text": "x"}', "model": "theirs"},
        {"format": "sensefield.vector", "made_from": "not JSON"},
        {"format": "sensefield.vector", "made_from": "[" * 9000},
        {"format": "sensefield.vector", "made_from": '"' + "x" * 20_000 + '"'},
    ],
)
def test_stories_that_are_not_ours_are_not_believed(metadata: dict[str, str]) -> None:
    made = read_upload(write_safetensors(LAYERS, metadata), MODEL)
    assert (made.made_from, made.model) == ({"upload": "safetensors"}, None)


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_refused_and_not_executed(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "executed"
    with pytest.raises(UnsupportedMediaError) as caught:
        read_upload(pickle.dumps(Bomb(path), protocol), MODEL)
    assert caught.value.param == "body"
    assert not path.exists()


@pytest.mark.parametrize(
    "data", [b"PK\x03\x04" + bytes(60), b"\x08", b"not a vector at all", b"\x93NUMPY" + bytes(60)]
)
def test_other_kinds_of_files_are_refused(data: bytes) -> None:
    with pytest.raises(UnsupportedMediaError, match="neither"):
        read_upload(data, MODEL)


def test_nothing_is_a_bad_request() -> None:
    with pytest.raises(BadRequestError, match="empty"):
        read_upload(b"", MODEL)


@pytest.mark.parametrize(
    ("values", "words"),
    [([0, 0, 0, 0], "is zero"), ([1, 2], "has shape [2]"), ([np.inf, 1, 1, 1], "not finite")],
)
def test_a_control_vectors_tensors_keep_their_names(values: list[float], words: str) -> None:
    wrong = VectorContent({"layer.4": np.array(values, np.float32)})
    with pytest.raises(BadRequestError) as caught:
        read_upload(write_gguf(wrong, "llama"), MODEL)
    assert "'direction.4'" in caught.value.message
    assert words in caught.value.message
    assert "layer" not in caught.value.message


def test_both_formats_are_checked_against_the_model() -> None:
    for file in (
        safetensors(direction=[1, 2, 3]),
        safetensors(layer_12=[1, 2, 3, 4]),
        write_gguf(VectorContent({"layer.12": np.ones(4, np.float32)}), "llama"),
        write_gguf(VectorContent({"layer.1": np.ones(3, np.float32)}), "llama"),
        write_gguf(VectorContent({"layer.1": np.zeros(4, np.float32)}), "llama"),
        write_gguf(VectorContent({"layer.1": np.full(4, np.nan, np.float32)}), "llama"),
    ):
        with pytest.raises(BadRequestError) as caught:
            read_upload(file, MODEL)
        assert caught.value.param == "body"


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_in_words(data: bytes) -> None:
    for tried in (data, b"GGUF" + data):
        with pytest.raises((BadRequestError, UnsupportedMediaError)):
            read_upload(tried, MODEL)
