"""Requests whose masks leave no token to choose: their own error, on all routes.

Where no token is left, the engine draws one that the grammar does not know and ends the request
with an error of the server's. Requests that keep rows see it in these, with a grammar or without.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import SamplingParams

from logit_processors.program import WIRE_KEY
from logit_processors.row_spec import masks_of

GRAMMAR = "structured_outputs"


def no_token_left(masks: Sequence[str]) -> VLLMValidationError:
    """Return the error of a request that masks have left no token to choose.

    Args:
        masks: the fields that they come from, one at least.

    """
    names = ["the grammar" if name == GRAMMAR else name for name in masks]
    return VLLMValidationError(f"{' and '.join(names)} left no token to choose", parameter=masks[0])


def blame_masks(engine: Any) -> None:
    """Have vLLM's engine client, which all routes share, end such requests with their error."""
    stock = engine.generate
    # A transfer of KV cache that fails ends requests with the same reason.
    only_grammars = engine.vllm_config.kv_transfer_config is None

    def generate(prompt: Any, params: Any, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        outputs: AsyncGenerator[Any, None] = stock(prompt, params, *args, **kwargs)
        grammar = getattr(params, GRAMMAR, None)
        if grammar is None or not only_grammars or _keeps_rows(params):
            return outputs
        return blamed(outputs, params)

    async def blamed(
        outputs: AsyncGenerator[Any, None], params: SamplingParams
    ) -> AsyncGenerator[Any, None]:
        async with aclosing(outputs):
            async for output in outputs:
                if any(each.finish_reason == "error" for each in output.outputs):
                    raise no_token_left(masks_of(params))
                yield output

    engine.generate = generate


def _keeps_rows(params: SamplingParams) -> bool:
    wire = (params.extra_args or {}).get(WIRE_KEY)
    return isinstance(wire, dict) and bool(wire.get("rows"))
