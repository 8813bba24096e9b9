"""Parts of vLLM's HTTP server that our routes use too, imported from this vLLM's modules."""

from vllm.entrypoints.generate.base.protocol import DeltaMessage
from vllm.entrypoints.serve.engine.protocol import ErrorInfo, ErrorResponse, ModelCard
from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
from vllm.entrypoints.serve.utils.api_utils import load_aware_call, with_cancellation
from vllm.entrypoints.serve.utils.orca_metrics import metrics_header
from vllm.entrypoints.serve.utils.sse_keep_alive import with_sse_keep_alive

__all__ = [
    "DeltaMessage",
    "ErrorInfo",
    "ErrorResponse",
    "ModelCard",
    "create_error_response",
    "load_aware_call",
    "metrics_header",
    "with_cancellation",
    "with_sse_keep_alive",
]
