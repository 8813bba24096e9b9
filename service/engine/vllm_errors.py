"""vLLM's exceptions that other floors raise or catch, from where this vLLM has them."""

from vllm.exceptions import (
    GracefulHTTPError,
    RetryableRequestError,
    VLLMError,
    VLLMValidationError,
)
from vllm.v1.engine.exceptions import EngineDeadError

__all__ = [
    "EngineDeadError",
    "GracefulHTTPError",
    "RetryableRequestError",
    "VLLMError",
    "VLLMValidationError",
]
