"""The forward hooks of the decoder layers, which idle layers do not have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle

from service.engine.residual.layers import stream_of
from service.engine.residual.operator import residual_stream

PLACE = "sensefield_place"
"""Name of a layer's buffer with its index among this rank's layers, ``[1]`` int32."""


class LayerHooks:
    """Hooks each layer, and removes the hooks of idle layers if possible.

    PyTorch's call of a module with a hook has an overhead that is greater than the hook's.

    Args:
        layers: this rank's layers.
        hidden_size: size of the stream.
        removable: whether the layers run eagerly; a compiled or captured layer keeps its hook.

    """

    def __init__(
        self, layers: Sequence[torch.nn.Module], hidden_size: int, *, removable: bool
    ) -> None:
        self._layers = layers
        self._hook = _hook(hidden_size)
        self._removable = removable
        self._handles: dict[int, RemovableHandle] = {}
        for at in range(len(layers)):
            self._add(at)

    def fit(self, is_idle: Callable[[int], bool]) -> None:
        """Hook the layers, by index, that are not idle in the next step."""
        if not self._removable:
            return
        for at in range(len(self._layers)):
            if is_idle(at):
                if at in self._handles:
                    self._handles.pop(at).remove()
            elif at not in self._handles:
                self._add(at)

    def _add(self, at: int) -> None:
        self._handles[at] = self._layers[at].register_forward_hook(self._hook)


def _hook(hidden_size: int) -> Callable[..., None]:
    def hook(layer: Any, _arguments: Any, output: Any) -> None:
        found = stream_of(layer, output, hidden_size)
        if found is None:
            return
        # In eager mode call the function directly: only torch.compile needs the custom op.
        compiling = torch.compiler.is_compiling()
        call = torch.ops.sensefield.residual_stream if compiling else residual_stream
        call(*found, layer.sensefield_place)

    return hook
