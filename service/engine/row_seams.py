"""The seams that produce rows: of sampled tokens, and of prompts."""

from __future__ import annotations

from service.engine import adapters, frontend, prompt_cache, prompt_rows, samplers
from service.engine.seam import Seam

_V2 = "vllm.v1.worker.gpu"
_PROMPTS = f"{_V2}.sample.prompt_logprob:PromptLogprobsWorker"
_VERIFIER = f"{_V2}.spec_decode.rejection_sampler:RejectionSampler"
_PUNICA = "vllm.lora.punica_wrapper.punica_cpu"
_EXPANDED = ("inputs", "lora_b_weights", "output_tensor")
_RUNS = (
    *("b_seq_start_loc", "seq_len_tensor", "lora_indices_tensor"),
    *("batches", "max_seq_length", "token_nums"),
)
_SLICE, _ADDS = ("slice_offset", "slice_size"), ("add_inputs",)
_SAMPLING = "a sampler hands out kept rows, and has no place for outputs of others"
_WIDEST = "its logprobs are as wide as the widest request's, and rows stand in their place"
_PROMPT_ROWS = "a prompt hands out kept rows, and has no place for outputs of others"
_UNADAPTED = "a row without an adapter takes the last one's weights"

_SAMPLED = (
    Seam(
        owner="vllm.v1.sample.sampler:Sampler",
        attribute="forward",
        parameters=(
            *("self", "logits", "sampling_metadata"),
            *("predict_bonus_token", "logprobs_mode_override"),
        ),
        wrap=samplers.sampled_v1,
        why=_SAMPLING,
    ),
    Seam(
        owner=f"{_V2}.sample.sampler:Sampler",
        attribute="__call__",
        parameters=("self", "logits", "input_batch"),
        wrap=samplers.sampled_v2,
        why=_SAMPLING,
        needs_triton=True,
    ),
    Seam(
        owner=f"{_V2}.sample.sampler:Sampler",
        attribute="add_request",
        parameters=("self", "req_idx", "sampling_params"),
        wrap=samplers.added_v2,
        why="V2 does not notify processors when a request ends",
        needs_triton=True,
    ),
    Seam(
        owner=f"{_V2}.sample.sampler:Sampler",
        attribute="get_logprobs_dims",
        parameters=("self", "idx_mapping_np", "include_token_ids"),
        wrap=samplers.without_logprobs_dims,
        why=_WIDEST,
        needs_triton=True,
    ),
    Seam(
        owner=_VERIFIER,
        attribute="__call__",
        parameters=("self", "logits", "input_batch", "draft_logits", "invalid_drafts"),
        wrap=samplers.verified,
        why=_SAMPLING,
        needs_triton=True,
    ),
    Seam(
        owner=_VERIFIER,
        attribute="_get_logprobs_tensors",
        parameters=(
            *("self", "sampled", "num_sampled", "logits", "cu_num_logits"),
            *("cu_num_logits_np", "max_num_logprobs"),
        ),
        wrap=samplers.without_verified_logprobs,
        why=_WIDEST,
        needs_triton=True,
    ),
    Seam(
        owner="vllm.v1.engine.output_processor",
        attribute="LogprobsProcessor",
        parameters=(
            *("tokenizer", "logprobs", "prompt_logprobs", "cumulative_logprob"),
            *("num_logprobs", "num_prompt_logprobs", "prompt_token_id_logprobs"),
        ),
        wrap=frontend.rows_processor,
        why="rows stay numpy: vLLM makes dicts of Python floats of them",
    ),
)

_PROMPT = (
    Seam(
        owner="vllm.v1.worker.gpu_model_runner:GPUModelRunner",
        attribute="_get_prompt_logprobs_dict",
        parameters=("self", "hidden_states", "num_scheduled_tokens"),
        wrap=prompt_rows.kept_v1,
        why=_PROMPT_ROWS,
    ),
    Seam(
        owner=_PROMPTS,
        attribute="add_request",
        parameters=("self", "req_id", "req_idx", "sampling_params"),
        wrap=prompt_rows.added_v2,
        why=_PROMPT_ROWS,
        needs_triton=True,
    ),
    Seam(
        owner=_PROMPTS,
        attribute="compute_prompt_logprobs",
        parameters=(
            *("self", "logits_fn", "hidden_states", "input_batch", "all_token_ids"),
            *("num_computed_tokens", "prompt_lens"),
        ),
        wrap=prompt_rows.kept_v2,
        why=_PROMPT_ROWS,
        needs_triton=True,
    ),
    Seam(
        owner=_PROMPTS,
        attribute="compute_prompt_token_id_logprobs",
        parameters=("self", "logits_fn", "hidden_states", "input_batch", "prompt_lens"),
        wrap=prompt_rows.named_v2,
        why="LoRA's unembedding reads a prompt's rows under the adapters of sampled ones",
        needs_triton=True,
    ),
    Seam(
        owner="vllm.v1.core.kv_cache_manager:KVCacheManager",
        attribute="get_computed_blocks",
        parameters=("self", "request"),
        wrap=prompt_cache.up_to_first_row,
        why="tokens out of the prefix cache have no row, and vLLM would not read it at all",
        until="0.33",
    ),
)

_LORA = (
    Seam(
        owner=_PUNICA,
        attribute="bgmv_expand",
        parameters=(*_EXPANDED, "lora_indices_tensor", *_ADDS),
        wrap=adapters.spared_rows,
        why=_UNADAPTED,
    ),
    Seam(
        owner=_PUNICA,
        attribute="bgmv_expand_slice",
        parameters=(*_EXPANDED, "lora_indices_tensor", *_SLICE, *_ADDS),
        wrap=adapters.spared_rows,
        why=_UNADAPTED,
    ),
    Seam(
        owner=_PUNICA,
        attribute="sgmv_expand",
        parameters=(*_EXPANDED, *_RUNS, *_ADDS),
        wrap=adapters.spared_runs,
        why=_UNADAPTED,
    ),
    Seam(
        owner=_PUNICA,
        attribute="sgmv_expand_slice",
        parameters=(*_EXPANDED, *_RUNS, *_SLICE, *_ADDS),
        wrap=adapters.spared_runs,
        why=_UNADAPTED,
    ),
)

ROWS = (*_SAMPLED, *_PROMPT, *_LORA)
