"""Limits of vLLM's V2 runner on sampling parameters: beyond them its engine ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vllm import envs
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import SamplingParams
from vllm.v1.worker.gpu.sample.logit_bias import MAX_NUM_STOP_TOKEN_IDS

MAX_SEED = 2**63 - 1
"""V2 keeps the seed of each choice in an int64, and vLLM counts up from the request's."""


def check_room(params: SamplingParams) -> None:
    """Check a request's sampling parameters, as the engine gets them, against the limits.

    Raises:
        VLLMValidationError: a parameter is over its limit.

    """
    stops = len(params.all_stop_token_ids)
    if params.min_tokens and stops > MAX_NUM_STOP_TOKEN_IDS:
        raise VLLMValidationError(
            f"{stops} tokens, with those that end the model's texts, are too many beside "
            f"min_tokens; allowed: {MAX_NUM_STOP_TOKEN_IDS}",
            parameter="stop_token_ids",
        )
    if params.seed is not None and params.seed + params.n - 1 > MAX_SEED:
        raise VLLMValidationError(
            f"{params.seed} is too large for {params.n} choices, each of which has the seed after "
            f"the one before; allowed: up to {MAX_SEED - params.n + 1}",
            parameter="seed",
        )
    tokens = sum(map(len, params.bad_words_token_ids or ()))
    if tokens > envs.VLLM_MAX_BAD_WORDS_TOTAL_TOKENS:
        raise VLLMValidationError(
            f"{tokens} tokens are too many; allowed: {envs.VLLM_MAX_BAD_WORDS_TOTAL_TOKENS} in all",
            parameter="bad_words",
        )


def with_room(stock: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``InputProcessor.process_inputs``, which checks each request.

    It is no step of the engine client: vLLM completes the parameters here, from the model's
    generation config and with its tokenizer.
    """

    def process_inputs(*args: Any, **kwargs: Any) -> Any:
        request = stock(*args, **kwargs)
        if request.sampling_params is not None:
            check_room(request.sampling_params)
        return request

    return process_inputs
