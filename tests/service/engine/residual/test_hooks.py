"""A layer has a hook when it has something to do, and its op is called for its own place."""

from __future__ import annotations

import pytest
import torch
from torch.nn import Identity, Module

from service.engine.residual import hooks as module
from service.engine.residual.hooks import PLACE, LayerHooks

COUNT, SIZE = 3, 4
STREAM = torch.zeros(2, SIZE)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the places for which the op has been called."""
    places: list[int] = []
    monkeypatch.setattr(module, "residual_stream", lambda *call: places.append(int(call[-1])))
    return places


def layers() -> list[Module]:
    made: list[Module] = [Identity() for _ in range(COUNT)]
    for at, layer in enumerate(made):
        layer.register_buffer(PLACE, torch.tensor([at], dtype=torch.int32), persistent=False)
    return made


def run(made: list[Module], called: list[int], output: torch.Tensor = STREAM) -> list[int]:
    """Return the places called for by one pass."""
    called.clear()
    for layer in made:
        layer(output)
    return list(called)


def test_all_layers_are_hooked_until_a_step_says_which_are_idle(called: list[int]) -> None:
    made = layers()
    LayerHooks(made, SIZE, removable=True)
    assert run(made, called) == [0, 1, 2]


def test_idle_layers_have_no_hook_and_get_it_back(called: list[int]) -> None:
    made = layers()
    hooks = LayerHooks(made, SIZE, removable=True)
    for busy in ({1}, set(), {0, 1, 2}, {0, 2}, {0, 2}, {1}):
        hooks.fit(set(range(COUNT)).difference(busy).__contains__)
        assert run(made, called) == sorted(busy)
        assert [bool(layer._forward_hooks) for layer in made] == [at in busy for at in range(COUNT)]


def test_hooks_that_a_compiler_may_have_seen_stay(called: list[int]) -> None:
    made = layers()
    hooks = LayerHooks(made, SIZE, removable=False)
    hooks.fit(lambda _: True)
    assert run(made, called) == [0, 1, 2]


def test_what_is_no_stream_is_left_alone(called: list[int]) -> None:
    made = layers()
    LayerHooks(made, SIZE, removable=True)
    assert run(made, called, torch.zeros(2, SIZE + 1)) == []
