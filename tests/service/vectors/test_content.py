"""Contents: what a vector is, its address, and which models can use it."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import save

from service.errors import BadRequestError
from service.vectors.content import VectorContent, check
from tests.unit_support import model_facts

HIDDEN = 4
MODEL = model_facts(HIDDEN, layers=12)
VALUES = arrays(np.float32, HIDDEN, elements=st.floats(-9, 9, width=32)).filter(np.any)


def floats(*values: float, dtype: Any = np.float32) -> Any:
    return np.array(values, dtype)


def test_a_direction() -> None:
    content = check({"direction": floats(1, -2, 0, 2)}, MODEL)
    assert not content.residual
    assert content.layers == {}
    assert content.read_by_unembedding.tolist() == [1.0, -2.0, 0.0, 2.0]
    assert content.summary.describe() == {
        "space": "unembedding",
        "hidden_size": HIDDEN,
        "layers": [],
        "norm": 3.0,
        "layer_norms": {},
    }


def test_layers_come_by_number_and_the_last_is_for_the_unembedding() -> None:
    content = check({f"layer.{n}": floats(*[n + 1] * 4) for n in (9, 10, 0)}, MODEL)
    assert content.residual
    assert list(content.layers) == [0, 9, 10]
    assert content.read_by_unembedding.tolist() == [11.0] * 4
    summary = content.summary
    assert summary.layer_norms == {0: 2.0, 9: 20.0, 10: 22.0}
    assert summary.norm == pytest.approx((4 + 400 + 484) ** 0.5)
    assert summary.largest == 11.0
    assert summary.describe()["layers"] == [0, 9, 10]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_any_float_becomes_float32(dtype: Any) -> None:
    content = check({"direction": floats(0.5, -1, 0, 3, dtype=dtype)}, MODEL)
    assert content.read_by_unembedding.dtype == np.float32
    assert content.read_by_unembedding.tolist() == [0.5, -1.0, 0.0, 3.0]


def test_the_address_as_it_is_documented() -> None:
    content = check({"layer.2": floats(1, 2, 3, 4), "layer.10": floats(5, 6, 7, 8)}, MODEL)
    # By name, and "layer.10" sorts before "layer.2".
    expected = b"layer.10\0" + struct.pack("<Q4f", 4, 5, 6, 7, 8)
    expected += b"layer.2\0" + struct.pack("<Q4f", 4, 1, 2, 3, 4)
    assert content.sha256 == hashlib.sha256(expected).hexdigest()


@given(st.dictionaries(st.integers(0, 11), VALUES, min_size=1, max_size=4))
def test_the_address_is_of_the_directions_alone(layers: dict[int, Any]) -> None:
    tensors = {f"layer.{n}": values for n, values in layers.items()}
    content = check(tensors, MODEL)
    backwards = dict(reversed(tensors.items()))
    assert check(backwards, MODEL).sha256 == content.sha256
    wider = {name: values.astype(np.float64) for name, values in tensors.items()}
    assert check(wider, MODEL).sha256 == content.sha256
    name, values = next(iter(tensors.items()))
    assert check({**tensors, name: values * -1}, MODEL).sha256 != content.sha256
    moved = {f"layer.{n + 1}": values for n, values in layers.items()}
    assert check(moved, replace(MODEL, layers=99)).sha256 != content.sha256


REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    ({"direction": floats(1, 2, 3)}, ["'direction'", "[3]", "[4]"]),
    ({"direction": np.ones((1, 4))}, ["'direction'", "[1, 4]", "[4]"]),
    ({"direction": np.ones(())}, ["[]", "[4]"]),
    ({"direction": floats(1, 2, 3, np.nan)}, ["'direction'", "finite"]),
    ({"layer.3": floats(1, 2, 3, np.inf)}, ["'layer.3'", "finite"]),
    ({"direction": floats(1e300, 1, 1, 1, dtype=float)}, ["'direction'", "finite"]),
    ({"direction": floats(0, 0, 0, 0)}, ["'direction'", "zero"]),
    ({"layer.1": floats(1, 1, 1, 1), "layer.2": floats(0, 0, 0, 0)}, ["'layer.2'", "zero"]),
    ({"direction": floats(1e-300, 0, 0, 0, dtype=float)}, ["'direction'", "zero"]),
    ({}, ["[]", "'direction'", "'layer.<n>'"]),
    ({"weights": floats(1, 1, 1, 1)}, ["'weights'", "'direction'"]),
    ({"direction": floats(1, 1, 1, 1), "layer.1": floats(1, 1, 1, 1)}, ["'layer.1'", "one tensor"]),
    ({"direction": floats(1, 1, 1, 1), "more": floats(1, 1, 1, 1)}, ["'more'", "one tensor"]),
    ({"layer.1": floats(1, 1, 1, 1), "more": floats(1, 1, 1, 1)}, ["'more'", "one tensor"]),
    ({"layer.01": floats(1, 1, 1, 1)}, ["'layer.01'", "'layer.<n>'"]),
    ({"layer.10000": floats(1, 1, 1, 1)}, ["'layer.10000'"]),
    ({"layer.x": floats(1, 1, 1, 1)}, ["'layer.x'"]),
    ({"layer.12": floats(1, 1, 1, 1)}, ["layer 12", "0 to 11"]),
    ({"x" * 5000: floats(1, 1, 1, 1)}, ["xxx", "…"]),
]


@pytest.mark.parametrize(("tensors", "words"), REFUSED, ids=[str(w) for _, w in REFUSED])
def test_what_is_no_vector_is_refused(tensors: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(BadRequestError) as caught:
        check(tensors, MODEL, "here")
    assert caught.value.param == "here"
    assert all(word in caught.value.message for word in words), caught.value.message
    assert len(caught.value.message) < 500


def test_values_beyond_the_models_type_are_refused() -> None:
    half = replace(MODEL, dtype="float16", largest=65504.0)
    assert check({"direction": floats(65504, 1, 1, 1)}, half).summary.largest == 65504.0
    for value in (65505.0, -1e30):
        with pytest.raises(BadRequestError, match="overflows the model's float16"):
            check({"direction": floats(value, 1, 1, 1)}, half)


def test_a_file_of_every_layer_in_float64_is_not_too_large() -> None:
    model = replace(MODEL, hidden_size=512, layers=40)
    whole = {f"layer.{n}": np.ones(512) for n in range(40)}
    assert len(save(whole)) < model.max_file_bytes < 2 * len(save(whole)) + (2 << 20)


def test_a_vector_of_another_model_says_why_it_does_not_fit() -> None:
    content = VectorContent({"layer.11": floats(1, 2, 3, 70000)})
    assert content.summary.misfit(MODEL) is None
    for model, words in (
        (replace(MODEL, hidden_size=5), ["hidden size 4", "5"]),
        (replace(MODEL, layers=11), ["layer 11", "0 to 10"]),
        (replace(MODEL, largest=65504.0), ["70000", "float32"]),
    ):
        reason = content.summary.misfit(model)
        assert reason is not None
        assert all(word in reason for word in words), reason
