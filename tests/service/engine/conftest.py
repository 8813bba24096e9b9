"""vLLM's configuration of the embedded model, and a model of four tokens, without an engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.distributed import (
    cleanup_dist_env_and_memory,
    ensure_model_parallel_initialized,
    init_distributed_environment,
)
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.model_loader.utils import initialize_model

from service.embedded_model import embedded_model_dir


@pytest.fixture(scope="session")
def vllm_config() -> VllmConfig:
    """What a server of the embedded model is configured with."""
    return EngineArgs(model=str(embedded_model_dir())).create_engine_config()


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """vLLM's GPT-2 without layers, of hidden size 3 and four tokens.

    Its unembedding has the rows of the identity and (1, 1, 1), its final LayerNorm the gain 1.
    """
    folder: Path = tmp_path_factory.mktemp("gpt2")
    sizes = {"vocab_size": 4, "n_embd": 3, "n_layer": 0, "n_head": 1, "n_positions": 16}
    tokens = {"bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False}
    transformers.GPT2Config(architectures=["GPT2LMHeadModel"], **sizes, **tokens).save_pretrained(
        folder
    )
    with set_current_vllm_config(VllmConfig()):
        init_distributed_environment(1, 0, f"file://{folder}/meeting", 0, "gloo")
        ensure_model_parallel_initialized(1, 1)
    arguments = EngineArgs(
        model=str(folder), dtype="float32", skip_tokenizer_init=True, max_model_len=16
    )
    config = arguments.create_engine_config()
    with set_current_vllm_config(config), torch.no_grad():
        model = initialize_model(config)
        model.lm_head.weight[:4] = torch.cat([torch.eye(3), torch.ones(1, 3)])
        yield model
    cleanup_dist_env_and_memory()
