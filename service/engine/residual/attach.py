"""Binding the residual stream to vLLM's worker when it has loaded its model.

vLLM has no extension point between loading a model and profiling, compiling and capturing
it that holds for every load format; so the worker's ``load_model`` is wrapped, and from
there the few methods of its runner that tell what each step is made of. Draft models are
not the runner's model and stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from vllm.config import CompilationMode
from vllm.triton_utils import HAS_TRITON
from vllm.v1.worker.worker_base import WorkerWrapperBase

from service.engine.compatibility import assert_signature
from service.engine.residual.bank import Bank, bank_capacity
from service.engine.residual.device import DeviceBuffers
from service.engine.residual.hooks import PLACE, LayerHooks
from service.engine.residual.host import HostBuffers
from service.engine.residual.layers import find_layers, own_layers
from service.engine.residual.operator import set_stream
from service.engine.residual.step import StepLayout
from service.engine.residual.stream import ResidualStream, Support

_SALT = "residual stream 1"
_PREPROCESS = ("input_batch", "block_tables", "kv_cache_config", "num_computed_tokens")
_FORWARD = ("input_ids", "positions", "intermediate_tensors", "inputs_embeds", "model_kwargs")
_PADDING = 512
"""Tokens beyond the scheduler's limit that padding may add to a step."""


def install() -> None:
    """Attach to the models that this process's workers will load."""
    stock = WorkerWrapperBase.init_device

    def init_device(self: Any) -> None:
        stock(self)
        _follow(self.worker)

    WorkerWrapperBase.init_device = init_device


def _follow(worker: Any) -> None:
    stock = worker.load_model

    def load_model(*args: Any, **kwargs: Any) -> None:
        _salt_compile_cache(worker.vllm_config)
        stock(*args, **kwargs)
        attach(worker.model_runner, worker.vllm_config)

    worker.load_model = load_model


def _salt_compile_cache(vllm_config: Any) -> None:
    """Keep compiled code with our op apart from a plain vLLM's, which has no such op."""
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
        # vLLM's memory profile takes what is there before it for the model's.
        runner.model_memory_usage += buffers.bytes
    set_stream(stream)
    eager = vllm_config.compilation_config.mode == CompilationMode.NONE
    hooks = LayerHooks(list(own.values()), hidden_size, removable=eager)
    _follow_steps(runner, stream, hooks)


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


def _follow_steps(runner: Any, stream: ResidualStream, hooks: LayerHooks) -> None:
    execute_model = runner.execute_model

    def execute(scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        for request_id in scheduler_output.finished_req_ids:
            stream.end(request_id)
        for new in scheduler_output.scheduled_new_reqs:
            stream.start(new.req_id, new.sampling_params, new.prompt_len)
        try:
            return execute_model(scheduler_output, *args, **kwargs)
        finally:
            stream.end_step()

    runner.execute_model = execute

    def prepare(layout: StepLayout) -> None:
        stream.begin_step(layout)
        hooks.fit(stream.is_idle)

    if hasattr(runner, "model_state"):
        assert_signature("preprocess_state", runner.model_state.preprocess_state, _PREPROCESS)
        _before(
            runner.model_state,
            "preprocess_state",
            lambda batch, *_: prepare(StepLayout.of_v2(batch)),
        )
    else:
        assert_signature("_model_forward", runner._model_forward, _FORWARD)
        _before(runner, "_model_forward", lambda *_, **__: prepare(StepLayout.of_v1(runner)))


def _before(owner: Any, name: str, prepare: Callable[..., None]) -> None:
    """Have each step prepared just before a method of vLLM's runs."""
    stock = getattr(owner, name)

    def method(*args: Any, **kwargs: Any) -> Any:
        prepare(*args, **kwargs)
        return stock(*args, **kwargs)

    setattr(owner, name, method)
