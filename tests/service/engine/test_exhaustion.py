"""An engine's error that a grammar has caused is the request's own."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import pytest
from vllm.exceptions import VLLMValidationError
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import SamplingParams, StructuredOutputsParams

from logit_processors.wire import WIRE_KEY
from service.engine.engine import SensefieldEngine
from service.engine.exhaustion import MaskBlame
from tests.entries import spec_of

GRAMMAR = StructuredOutputsParams(choice=["yes"])
ROWS = {WIRE_KEY: {"rows": spec_of().model_dump()}}


def output(finish_reason: str | None) -> RequestOutput:
    choice = CompletionOutput(0, "", [7], None, None, finish_reason=finish_reason)
    return RequestOutput("one", None, [1], None, [choice], finish_reason is not None)


@dataclass
class Engine:
    """An engine whose requests end with an error after a token."""

    closed: int = 0

    async def generate(
        self, prompt: str, params: Any, request_id: str
    ) -> AsyncGenerator[RequestOutput]:
        try:
            yield output(None)
            yield output("error")
        finally:
            self.closed += 1


async def reasons(
    stock: Engine, params: SamplingParams, *, only_grammars: bool = True
) -> list[str | None]:
    engine = SensefieldEngine(stock, [MaskBlame(only_grammars)])
    outputs = engine.generate("a", params, "one")
    return [each.outputs[0].finish_reason async for each in outputs]


async def test_a_grammar_that_left_no_token_is_the_requests_error() -> None:
    engine = Engine()
    params = SamplingParams(structured_outputs=GRAMMAR, allowed_token_ids=[3])
    with pytest.raises(VLLMValidationError, match="and the grammar left no token") as caught:
        await reasons(engine, params)
    assert caught.value.parameter == "allowed_token_ids"
    assert engine.closed == 1


@pytest.mark.parametrize(
    "params",
    [SamplingParams(), SamplingParams(structured_outputs=GRAMMAR, extra_args=ROWS)],
)
async def test_other_errors_pass(params: SamplingParams) -> None:
    engine = Engine()
    assert await reasons(engine, params) == [None, "error"]


async def test_a_transfer_of_kv_cache_may_have_failed() -> None:
    params = SamplingParams(structured_outputs=GRAMMAR)
    assert await reasons(Engine(), params, only_grammars=False) == [None, "error"]
