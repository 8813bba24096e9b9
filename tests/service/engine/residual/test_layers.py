"""Decoder layers are found where models keep them, and their output is read for what it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import Identity, Linear, Module, ModuleList
from vllm.model_executor.models.utils import PPMissingLayer

from service.engine.residual.layers import find_layers, own_layers, stream_of

TOKENS, SIZE = 3, 4


def nested(path: str, layers: Module) -> Module:
    """Return a module that holds ``layers`` at a dotted path."""
    outer = inner = Module()
    *names, last = path.split(".")
    for name in names:
        inner.add_module(name, Module())
        inner = getattr(inner, name)
    inner.add_module(last, layers)
    return outer


def layers(count: int = 2) -> ModuleList:
    return ModuleList([Linear(1, 1) for _ in range(count)])


class Wrapper(Module):
    """A multimodal model around a language model."""

    def __init__(self, language: Module) -> None:
        super().__init__()
        self.language = language

    def get_language_model(self) -> Module:
        return self.language


@pytest.mark.parametrize("path", ["model.layers", "transformer.h", "model.decoder.layers"])
def test_layers_are_found(path: str) -> None:
    held = layers()
    assert find_layers(nested(path, held)) is held
    assert find_layers(Wrapper(nested(path, held))) is held


@pytest.mark.parametrize(
    "model",
    [Module(), nested("model.layers", Identity()), nested("model.layers", ModuleList())],
    ids=["nothing", "no list", "an empty list"],
)
def test_a_model_without_layers_says_so(model: Module) -> None:
    found = find_layers(model)
    assert isinstance(found, str)
    assert "Module has no decoder layers" in found


def test_layers_of_other_ranks_are_not_own() -> None:
    held = ModuleList([PPMissingLayer(), Linear(1, 1), Linear(1, 1), PPMissingLayer()])
    assert own_layers(held) == {1: held[1], 2: held[2]}


HIDDEN, OTHER = torch.ones(TOKENS, SIZE), torch.zeros(TOKENS, SIZE)


class PhiMoEDecoderLayer(Module):
    """Has the name of a layer that returns its whole stream and a remainder."""


@pytest.mark.parametrize(
    ("layer", "output", "hidden", "other"),
    [
        (Module(), HIDDEN, HIDDEN, None),
        (Module(), (HIDDEN, OTHER), HIDDEN, OTHER),
        (Module(), (HIDDEN, None), HIDDEN, None),
        (PhiMoEDecoderLayer(), (HIDDEN, OTHER), HIDDEN, None),
    ],
    ids=["one tensor", "two", "one and nothing", "whole"],
)
def test_the_stream_is_read(
    layer: Module, output: Any, hidden: torch.Tensor, other: torch.Tensor | None
) -> None:
    found = stream_of(layer, output, SIZE)
    assert found is not None
    assert found[0] is hidden
    assert found[1] is other


def test_a_batch_of_one_is_looked_into() -> None:
    found = stream_of(Module(), HIDDEN.unsqueeze(0), SIZE)
    assert found is not None
    assert found[0].data_ptr() == HIDDEN.data_ptr()
    assert found[0].shape == HIDDEN.shape


@pytest.mark.parametrize(
    "output",
    [
        None,
        "text",
        (HIDDEN, OTHER, OTHER),
        (HIDDEN, "text"),
        (HIDDEN, OTHER[:2]),
        HIDDEN[:, :2],
        HIDDEN.unsqueeze(1),
        (HIDDEN.unsqueeze(0), OTHER),
        (HIDDEN, (OTHER, OTHER)),
    ],
)
def test_anything_else_is_no_stream(output: Any) -> None:
    assert stream_of(Module(), output, SIZE) is None
