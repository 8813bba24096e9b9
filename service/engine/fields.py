"""The fields of vLLM's objects that are read, by class."""

from __future__ import annotations

import dis
import inspect
from collections.abc import Iterator
from dataclasses import fields, is_dataclass

from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import SamplingParams, StructuredOutputsParams
from vllm.triton_utils import HAS_TRITON
from vllm.v1.core.sched.output import NewRequestData, SchedulerOutput
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.outputs import SamplerOutput
from vllm.v1.sample.logits_processor import LogitsProcessors
from vllm.v1.sample.logits_processor.interface import BatchUpdate
from vllm.v1.sample.metadata import SamplingMetadata
from vllm.v1.worker.gpu_input_batch import CachedRequestState, InputBatch
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

READ: dict[type, tuple[str, ...]] = {
    SamplingParams: (
        *("extra_args", "logprobs", "num_logprobs", "logprob_token_ids", "prompt_logprobs"),
        *("skip_reading_prefix_cache", "output_kind", "allowed_token_ids", "bad_words"),
        *("min_tokens", "structured_outputs"),
    ),
    EngineCoreRequest: ("sampling_params",),
    RequestOutput: ("outputs", "prompt_token_ids", "prompt_logprobs"),
    CompletionOutput: ("index", "token_ids", "logprobs"),
    SchedulerOutput: ("finished_req_ids", "scheduled_new_reqs"),
    NewRequestData: ("req_id", "sampling_params", "prompt_len"),
    BatchUpdate: ("removed", "added", "moved"),
    SamplingMetadata: ("generators", "logitsprocs", "max_num_logprobs", "logprob_token_ids"),
    StructuredOutputsParams: ("_backend", "_backend_was_auto"),
    LogitsProcessors: ("non_argmax_invariant",),
    SamplerOutput: ("sampled_token_ids", "logprobs_tensors"),
    GPUModelRunner: (
        *("device", "model", "input_batch", "requests", "num_prompt_logprobs"),
        *("query_start_loc", "positions", "model_memory_usage"),
    ),
    InputBatch: ("num_reqs", "req_ids", "req_id_to_index", "num_computed_tokens_cpu"),
    CachedRequestState: (
        *("generator", "prompt_token_ids", "sampling_params", "num_computed_tokens"),
        "in_progress_prompt_logprobs_cpu",
    ),
}
"""Fields of the objects of both runners, and of V1's own."""
if HAS_TRITON:
    from vllm.v1.worker.gpu.buffer_utils import StagedWriteTensor, UvaBackedTensor
    from vllm.v1.worker.gpu.input_batch import InputBatch as V2InputBatch
    from vllm.v1.worker.gpu.model_runner import GPUModelRunner as V2ModelRunner
    from vllm.v1.worker.gpu.sample.logits_processor.interface import (
        LogitsContext,
        LogitsProcRequestState,
    )
    from vllm.v1.worker.gpu.sample.output import SamplerOutput as V2SamplerOutput
    from vllm.v1.worker.gpu.sample.prompt_logprob import PromptLogprobsWorker
    from vllm.v1.worker.gpu.sample.sampler import Sampler as V2Sampler
    from vllm.v1.worker.gpu.spec_decode.rejection_sampler import RejectionSampler
    from vllm.v1.worker.gpu.states import RequestState

    READ |= {
        LogitsProcRequestState: ("device", "max_num_reqs", "prompt_len", "all_token_ids"),
        UvaBackedTensor: ("gpu",),
        StagedWriteTensor: ("gpu",),
        LogitsContext: ("idx_mapping_np",),
        RequestState: ("index_to_req_id",),
        V2InputBatch: (
            *("num_reqs", "req_ids", "idx_mapping_np", "expanded_idx_mapping"),
            *("expanded_local_pos", "logits_indices", "positions", "input_ids"),
            *("num_draft_tokens_per_req", "cu_num_logits", "cu_num_logits_np"),
            *("query_start_loc", "query_start_loc_np", "num_scheduled_tokens"),
            *("num_computed_tokens_np", "num_computed_prefill_tokens_np", "prefill_len_np"),
        ),
        V2ModelRunner: ("device", "model_memory_usage", "sampler"),
        V2Sampler: ("logits_processors", "req_states"),
        V2SamplerOutput: ("sampled_token_ids", "logprobs_tensors", "num_sampled"),
        RejectionSampler: ("sampler",),
        PromptLogprobsWorker: ("uses_prompt_logprobs", "in_progress_prompt_logprobs"),
    }


def missing_fields() -> Iterator[str]:
    """Yield the listed fields that a class does not have, as ``class.field``."""
    for owner, names in READ.items():
        own = _fields_of(owner)
        yield from (
            f"{owner.__module__}.{owner.__name__}.{name}" for name in names if name not in own
        )


def _fields_of(owner: type) -> set[str]:
    """Return the fields of a class's objects: declared ones, and ones that its methods set.

    The methods are those that create the object or load its model.
    """
    found = set(dir(owner))
    if is_dataclass(owner):
        found |= {field.name for field in fields(owner)}
    for name in ("__init__", "load_model"):
        for method in [vars(each)[name] for each in owner.__mro__ if name in vars(each)]:
            if (code := getattr(inspect.unwrap(method), "__code__", None)) is not None:
                steps = dis.get_instructions(code)
                found |= {step.argval for step in steps if step.opname == "STORE_ATTR"}
    return found
