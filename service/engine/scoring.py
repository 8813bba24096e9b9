"""The probabilities of given tokens after a prompt, computed by the serving engine."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any

from vllm import SamplingParams
from vllm.inputs.engine import tokens_input
from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind

from logit_processors.row_spec import PROMPT_FROM_KEY, PROMPT_KEY, RowSpec, TokenRow
from logit_processors.wire import WIRE_KEY

_BASE = RowSpec(top_k=1, base=True)


async def base_rows(engine: Any, prompt: Sequence[int], wanted: Sequence[int]) -> list[TokenRow]:
    """Return the row of each wanted token without control.

    One pass over prompt and tokens, except for the prompt's tokens in the prefix cache.
    """
    params = _params(1)
    params.prompt_logprobs = 1
    # Cached up to the first row only, see ``prompt_cache``; a KV connector has no such limit.
    params.skip_reading_prefix_cache = engine.vllm_config.kv_transfer_config is not None
    rows_from = {PROMPT_KEY: _BASE.model_dump(), PROMPT_FROM_KEY: len(prompt) - 1}
    params.extra_args = {WIRE_KEY: rows_from}
    result = await run(engine, [*prompt, *wanted], params)
    rows: Any = result.prompt_logprobs
    return list(rows)


async def controlled_rows(
    engine: Any,
    prompt: Sequence[int],
    wanted: Sequence[int],
    force: Callable[[SamplingParams, int], None],
) -> list[TokenRow]:
    """Return the row of each wanted token under control that forces them, one per step.

    Args:
        engine: vLLM's client.
        prompt: token ids.
        wanted: token ids.
        force: puts the plan's control, for a number of tokens, into sampling parameters.

    """
    params = _params(len(wanted))
    params.ignore_eos = True
    force(params, len(wanted))
    result = await run(engine, prompt, params)
    rows: Any = result.outputs[0].logprobs
    return list(rows)


async def run(engine: Any, prompt: Sequence[int], params: SamplingParams) -> RequestOutput:
    """Run one request to its end; abort it if the caller is cancelled."""
    last: RequestOutput | None = None
    name = f"sight-{uuid.uuid4().hex}"
    async for result in engine.generate(tokens_input(list(prompt)), params, name):
        last = result
    assert last is not None
    return last


def _params(max_tokens: int) -> SamplingParams:
    return SamplingParams(
        temperature=0,
        max_tokens=max_tokens,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )
