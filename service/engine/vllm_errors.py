"""vLLM's exceptions that other packages raise or catch, imported from this vLLM's modules."""

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
