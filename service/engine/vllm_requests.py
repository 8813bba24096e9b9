"""vLLM's requests and outputs that other packages use, imported from this vLLM's modules."""

from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams

__all__ = [
    "CompletionOutput",
    "RequestOutput",
    "RequestOutputKind",
    "SamplingParams",
]
