"""vLLM's configuration of the embedded model, without an engine."""

from __future__ import annotations

import pytest
from vllm.config import VllmConfig
from vllm.engine.arg_utils import EngineArgs

from service.embedded_model import embedded_model_dir


@pytest.fixture(scope="session")
def vllm_config() -> VllmConfig:
    """What a server of the embedded model is configured with."""
    return EngineArgs(model=str(embedded_model_dir())).create_engine_config()
