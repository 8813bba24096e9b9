"""Attaches the residual stream to a model that vLLM's worker has loaded.

It happens before vLLM profiles, compiles and captures the model. Draft models are not the
runner's model and stay unchanged.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.config import CompilationMode
from vllm.triton_utils import HAS_TRITON

from service.engine.residual.bank import Bank, bank_capacity
from service.engine.residual.device import DeviceBuffers
from service.engine.residual.hooks import PLACE, LayerHooks
from service.engine.residual.host import HostBuffers
from service.engine.residual.layers import find_layers, own_layers
from service.engine.residual.operator import set_stream
from service.engine.residual.running import RunningSteps, follow
from service.engine.residual.stream import ResidualStream, Support

_SALT = "residual stream 1"
_PADDING = 512
"""Tokens beyond the scheduler's limit that padding may add to a step."""


def salt_compile_cache(vllm_config: Any) -> None:
    """Give compiled code with our op another cache key than a plain vLLM's code without it."""
    if isinstance(vllm_config.additional_config, dict):
        vllm_config.additional_config["sensefield"] = _SALT


def attach(runner: Any, vllm_config: Any) -> None:
    """Hook the runner's model and follow its steps."""
    layers = find_layers(runner.get_model())
    reason = _unsupported(vllm_config) or (layers if isinstance(layers, str) else None)
    own = {} if reason or isinstance(layers, str) else own_layers(layers)
    support = Support(reason, 0 if reason else len(layers), tuple(own))
    hidden_size = vllm_config.model_config.get_hidden_size()
    dtype = vllm_config.model_config.dtype
    capacity = bank_capacity(len(own) * hidden_size * dtype.itemsize) if own else 0
    bank = Bank(capacity, list(own), hidden_size, dtype, runner.device)
    scheduler = vllm_config.scheduler_config
    buffers: HostBuffers | DeviceBuffers = HostBuffers(bank)
    if HAS_TRITON:
        tokens = scheduler.max_num_batched_tokens + _PADDING
        buffers = DeviceBuffers(bank, scheduler.max_num_seqs, tokens)
    stream = ResidualStream(support, bank, buffers)
    for at, layer in enumerate(own.values()):
        place = torch.tensor([at], dtype=torch.int32, device=runner.device)
        layer.register_buffer(PLACE, place, persistent=False)
        stream.unseen.add(place.data_ptr())
    if isinstance(buffers, DeviceBuffers):
        # Count our buffers as model memory in vLLM's profile.
        runner.model_memory_usage += buffers.bytes
    set_stream(stream)
    eager = vllm_config.compilation_config.mode == CompilationMode.NONE
    hooks = LayerHooks(list(own.values()), hidden_size, removable=eager)
    follow(runner, RunningSteps(stream, hooks))


def _unsupported(vllm_config: Any) -> str | None:
    if vllm_config.model_config.runner_type == "pooling":
        return "a pooling model generates nothing"
    if vllm_config.model_config.is_encoder_decoder:
        return "an encoder-decoder model has two residual streams"
    if not isinstance(vllm_config.additional_config, dict):
        return "the platform's own --additional-config leaves no room for a compile cache salt"
    if vllm_config.parallel_config.use_ubatching:
        return "--enable-dbo splits a step's tokens"
    return None
