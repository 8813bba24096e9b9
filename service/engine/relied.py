"""Functions of vLLM that Sensefield calls, overrides or depends on, and does not replace."""

from __future__ import annotations

from service.engine.seam import Place

_LOGPROBS = "vllm.v1.engine.logprobs:LogprobsProcessor"
_OVERRIDDEN = "RowsProcessor overrides it"

CALLED = (
    Place(
        owner=_LOGPROBS,
        attribute="from_new_request",
        parameters=("tokenizer", "request"),
        why=_OVERRIDDEN,
    ),
    Place(
        owner=_LOGPROBS,
        attribute="_update_sample_logprobs",
        parameters=("self", "logprobs_lists"),
        why=_OVERRIDDEN,
    ),
    Place(
        owner=_LOGPROBS,
        attribute="_update_prompt_logprobs",
        parameters=("self", "prompt_logprobs_tensors"),
        why=_OVERRIDDEN,
    ),
    Place(
        owner="vllm.v1.core.sched.scheduler:Scheduler",
        attribute="update_from_output",
        parameters=("self", "scheduler_output", "model_runner_output"),
        why="it cuts each request's rows out of a step's",
    ),
    Place(
        owner="vllm.sampling_params:SamplingParams",
        attribute="_validate_structured_outputs",
        parameters=("self", "model_config", "structured_outputs_config", "tokenizer"),
        why="the trial of a grammar begins with it",
    ),
    Place(
        owner="vllm.v1.structured_output.request",
        attribute="get_structured_output_key",
        parameters=("params",),
        why="it returns the kind and the text of a grammar",
    ),
    Place(
        owner="vllm.lora.punica_wrapper.punica_base:PunicaWrapperBase",
        attribute="_update_base_metadata",
        parameters=("self", "mapping", "lora_index_to_id", "max_loras", "vocab_size"),
        why="it names the adapters of a step's rows",
    ),
    Place(
        owner="vllm.v1.worker.gpu_worker:Worker",
        attribute="load_model",
        parameters=("self", "load_dummy_weights"),
        why="ServingWorker overrides it",
    ),
    Place(
        owner="vllm.v1.worker.gpu_worker:Worker",
        attribute="execute_model",
        parameters=("self", "scheduler_output"),
        why="ServingWorker overrides it",
    ),
    Place(
        owner="vllm.v1.engine.output_processor:OutputProcessor",
        attribute="propagate_error",
        parameters=("self", "e"),
        why="it ends all requests of a process with an error",
    ),
    Place(
        owner="vllm.v1.engine.async_llm:AsyncLLM",
        attribute="abort",
        parameters=("self", "request_id", "internal"),
        why="it lets go of requests that ended with an error",
    ),
    Place(
        owner="vllm.v1.engine.async_llm:AsyncLLM",
        attribute="generate",
        parameters=(
            *("self", "prompt", "sampling_params", "request_id", "prompt_text", "lora_request"),
            *("tokenization_kwargs", "trace_headers", "priority", "data_parallel_rank"),
            *("session_id", "kv_hints", "reasoning_ended", "reasoning_parser_kwargs"),
        ),
        why="the steps of SensefieldEngine stand before it",
    ),
)
