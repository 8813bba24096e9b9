"""Errors for requests whose masks leave no token to choose, on all routes.

If no token is left, the engine samples one that the grammar refuses, and ends the request with an
internal error. Requests that keep rows detect it in them, with or without a grammar.
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
    """Return the error for masks that left no token to choose.

    Args:
        masks: the fields with the masks, at least one.

    """
    names = ["the grammar" if name == GRAMMAR else name for name in masks]
    return VLLMValidationError(f"{' and '.join(names)} left no token to choose", parameter=masks[0])


class MaskBlame:
    """A step that ends such a request, on any route, with an error that names the masks.

    Args:
        only_grammars: whether only grammars end requests with an internal error; a failed
            transfer of KV cache ends them in the same way.

    """

    def __init__(self, only_grammars: bool) -> None:
        self._only_grammars = only_grammars

    def __call__(
        self, generate: Generate, prompt: Any, params: Any, *args: Any, **kwargs: Any
    ) -> Outputs:
        """Generate, and turn an internal error into one that names the masks."""
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
