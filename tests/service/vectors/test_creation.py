"""Vectors that the server makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.errors import BadRequestError, NotFoundError, RequestError
from service.vectors.content import VectorContent
from service.vectors.creation import from_combination, from_text
from service.vectors.registry import VectorRegistry
from service.vectors.store import VectorStore
from tests.unit_support import FakeEngine, model_facts, safetensors

MODEL = model_facts()


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def registry(tmp_path: Path, engine: FakeEngine) -> VectorRegistry:
    registry = VectorRegistry(VectorStore(tmp_path), engine, MODEL)
    await registry.put("a", safetensors(layer_1=[1, 0, 0, 0], layer_2=[0, 2, 0, 0]))
    await registry.put("b", safetensors(layer_2=[0, 2, 2, 0], layer_3=[0, 0, 0, 1]))
    await registry.put("out", safetensors(direction=[1, 1, 1, 1]))
    return registry


def lists(content: VectorContent) -> dict[str, Any]:
    return {name: values.tolist() for name, values in content.tensors.items()}


async def test_a_vector_of_a_text(engine: FakeEngine) -> None:
    engine.parts = 3
    made = await from_text(" ocean", [7, 8], engine, MODEL)
    assert engine.methods() == ["prepare_directions"] * 3 + ["token_direction"]
    assert engine.calls[-1] == ("sensefield_token_direction", ([7, 8],))
    assert made.made_from == {"text": " ocean", "token_ids": [7, 8]}
    assert made.model == "tiny"
    assert lists(made.content) == {"direction": [1, 2, 3, 4]}


async def test_a_text_without_tokens_has_no_direction(engine: FakeEngine) -> None:
    with pytest.raises(BadRequestError) as caught:
        await from_text("nothing", [], engine, MODEL)
    assert caught.value.param == "from.text"
    assert engine.calls == []


async def test_a_vector_of_others_remembers_them(registry: VectorRegistry) -> None:
    made = await from_combination([("a", 2.0), ("b", -1.0)], None, registry, MODEL)
    assert lists(made.content) == {
        "layer.1": [2, 0, 0, 0],
        "layer.2": [0, 2, -2, 0],
        "layer.3": [0, 0, 0, -1],
    }
    shas = {name: (await registry.read(name)).sha256 for name in ("a", "b")}
    parts = [
        {"vector": "a", "weight": 2.0, "sha256": shas["a"]},
        {"vector": "b", "weight": -1.0, "sha256": shas["b"]},
    ]
    assert made.made_from == {"combine": parts}
    apart = await from_combination([("b", 1.0)], "a", registry, MODEL)
    assert lists(apart.content) == {"layer.2": [0, 0, 2, 0], "layer.3": [0, 0, 0, 1]}
    assert apart.made_from["orthogonal_to"] == {"vector": "a", "sha256": shas["a"]}


async def test_one_part_of_weight_one_is_the_vector_itself(registry: VectorRegistry) -> None:
    made = await from_combination([("a", 1.0)], None, registry, MODEL)
    assert made.content.sha256 == (await registry.read("a")).sha256


@pytest.mark.parametrize(
    ("parts", "other", "param", "kind"),
    [
        ([("a", 1.0), ("out", 1.0)], None, "from.combine[1].vector", BadRequestError),
        ([("out", 1.0)], "a", "from.orthogonal_to", BadRequestError),
        ([("a", 1.0), ("a", -1.0)], None, "from.combine", BadRequestError),
        ([("a", 1.0)], "a", "from.combine", BadRequestError),
        ([("a", 1.0), ("absent", 1.0)], None, "from.combine[1].vector", NotFoundError),
        ([("../a", 1.0)], None, "from.combine[0].vector", NotFoundError),
        ([("a", 1.0)], "absent", "from.orthogonal_to", NotFoundError),
    ],
)
async def test_what_cannot_be_combined(
    parts: Any, other: str | None, param: str, kind: type[RequestError], registry: VectorRegistry
) -> None:
    with pytest.raises(kind) as caught:
        await from_combination(parts, other, registry, MODEL)
    assert caught.value.param == param


async def test_a_sum_too_large_is_refused(registry: VectorRegistry) -> None:
    big = float(np.finfo(np.float32).max)
    await registry.put("big", safetensors(layer_1=[big, 1, 1, 1]))
    with pytest.raises(BadRequestError, match="not finite") as caught:
        await from_combination([("big", 1.0), ("big", 1.0)], None, registry, MODEL)
    assert caught.value.param == "from.combine"
