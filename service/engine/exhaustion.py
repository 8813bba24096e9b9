"""Requests whose masks leave no token to choose: their own error, on all routes.

Where no token is left, the engine draws one that the grammar does not know and ends the request
with an error of the server's. Requests that keep rows see it in these, with a grammar or without.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import SamplingParams

from logit_processors.row_spec import masks_of
from logit_processors.wire import WIRE_KEY
from service.engine.engine import Generate, Outputs

GRAMMAR = "structured_outputs"


def no_token_left(masks: Sequence[str]) -> VLLMValidationError:
    """Return the error of a request that masks have left no token to choose.

    Args:
        masks: the fields that they come from, one at least.

    """
    names = ["the grammar" if name == GRAMMAR else name for name in masks]
    return VLLMValidationError(f"{' and '.join(names)} left no token to choose", parameter=masks[0])


class MaskBlame:
    """Step that ends such a request, of any route, with its own error.

    Args:
        only_grammars: whether grammars alone end requests with an engine's error; a transfer of
            KV cache that fails ends them with the same reason.

    """

    def __init__(self, only_grammars: bool) -> None:
        self._only_grammars = only_grammars

    def __call__(
        self, generate: Generate, prompt: Any, params: Any, *args: Any, **kwargs: Any
    ) -> Outputs:
        """Generate, and blame the masks for an engine's error."""
        outputs = generate(prompt, params, *args, **kwargs)
        grammar = getattr(params, GRAMMAR, None)
        if grammar is None or not self._only_grammars or _keeps_rows(params):
            return outputs
        return _blamed(outputs, params)


async def _blamed(outputs: Outputs, params: SamplingParams) -> Outputs:
    async with aclosing(outputs):
        async for output in outputs:
            if any(each.finish_reason == "error" for each in output.outputs):
                raise no_token_left(masks_of(params))
            yield output


def _keeps_rows(params: SamplingParams) -> bool:
    wire = (params.extra_args or {}).get(WIRE_KEY)
    return isinstance(wire, dict) and bool(wire.get("rows"))
