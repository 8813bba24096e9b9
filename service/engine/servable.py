"""Refuses, before the model is loaded, an engine that would fail after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from service.errors import StartupError


def checked_config(stock: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``EngineArgs.create_engine_config``, which refuses unsupported configurations.

    vLLM starts an engine with the result, after it has read the flags and the model.
    """

    def create_engine_config(self: Any, *args: Any, **kwargs: Any) -> Any:
        config = stock(self, *args, **kwargs)
        assert_servable(config)
        return config

    return create_engine_config


def assert_servable(vllm_config: Any) -> None:
    """Refuse an engine that would fail after it has loaded the model.

    Raises:
        StartupError: the configuration is not supported.

    """
    if (runner := vllm_config.model_config.runner_type) != "generate":
        raise StartupError(
            f"--runner {runner}: the model generates no text, and vLLM would serve it without "
            "Sensefield's routes and checks"
        )
    if vllm_config.speculative_config is not None and not vllm_config.use_v2_model_runner:
        raise StartupError(
            "speculative decoding needs vLLM's V2 runner, and this engine runs on V1, which "
            "takes no logits processor beside it: leave out --speculative-config, or serve "
            "where Triton is (on a GPU), with a method that V2 has and without "
            "VLLM_USE_V2_MODEL_RUNNER=0"
        )
    if vllm_config.cache_config.kv_sharing_fast_prefill:
        raise StartupError(
            "--kv-sharing-fast-prefill: its layers see some of a step's tokens only, in which "
            "Sensefield would steer the wrong ones"
        )
    if vllm_config.parallel_config.prefill_context_parallel_size > 1:
        raise StartupError(
            "--prefill-context-parallel-size: no rank would see a whole prompt, which Sensefield "
            "steers and reads"
        )
