"""The custom op that the hooks call, and the stream that it works on.

Graphs and compilers see only the op and its tensors. Its work is in the buffers of this process's
stream, whose contents change between steps and whose addresses do not.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.library import Library
from vllm.utils.torch_utils import direct_register_custom_op

from service.engine.residual.stream import ResidualStream

_LIBRARY = Library("sensefield", "FRAGMENT")
NAME = "residual_stream"


@dataclass
class _Current:
    stream: ResidualStream | None = None


_current = _Current()


def current_stream() -> ResidualStream | None:
    """Return the stream of this process's engine, once its model is loaded."""
    return _current.stream


def set_stream(stream: ResidualStream) -> None:
    """Make the op work for a newly loaded model."""
    register()
    _current.stream = stream


def residual_stream(hidden: torch.Tensor, other: torch.Tensor | None, layer: torch.Tensor) -> None:
    """Steer ``hidden`` ``[tokens, hidden]`` in place, and copy the tokens to capture.

    Args:
        hidden: a decoder layer's addition to the stream, or the whole stream.
        other: the rest of the stream, ``[tokens, hidden]``, if there is one.
        layer: one int32, the layer's index among this rank's layers. It is a tensor, because a
            constant would give every layer another graph to compile.

    """
    stream = _current.stream
    assert stream is not None
    if stream.unseen:
        stream.unseen.discard(layer.data_ptr())
    stream.buffers.apply(hidden, other, layer)


def _fake(hidden: torch.Tensor, other: torch.Tensor | None, layer: torch.Tensor) -> None:
    """Return nothing, as the op does."""


def register() -> None:
    """Define the op, once in a process."""
    if not hasattr(torch.ops.sensefield, NAME):
        direct_register_custom_op(NAME, residual_stream, ["hidden"], _fake, target_lib=_LIBRARY)
