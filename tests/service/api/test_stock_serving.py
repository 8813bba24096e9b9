"""Mended answers of vLLM's own routes."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from starlette.datastructures import State
from vllm.entrypoints.anthropic.protocol import AnthropicMessagesResponse
from vllm.entrypoints.anthropic.serving import AnthropicServingMessages
from vllm.entrypoints.openai.responses.protocol import (
    ResponseCompletedEvent,
    ResponsesRequest,
    ResponsesResponse,
)
from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses
from vllm.entrypoints.serve.tokenize.protocol import DetokenizeRequest
from vllm.entrypoints.serve.tokenize.serving import ServingTokenization
from vllm.sampling_params import SamplingParams

from service.api.stock_serving import (
    MessagesAnswer,
    MessagesServing,
    ResponsesServing,
    serve_mended,
    truthful,
)
from service.errors import BadRequestError


@pytest.mark.parametrize("sequence", [None, "STOP"])
def test_a_message_always_tells_its_stop_sequence(sequence: str | None) -> None:
    stock = AnthropicMessagesResponse(
        id="a", content=[], model="m", usage=None, stop_sequence=sequence
    )
    told = MessagesAnswer(**dict(stock)).model_dump(exclude_none=True)
    assert told == {**stock.model_dump(exclude_none=True), "stop_sequence": sequence}


@pytest.mark.parametrize(("status", "kind"), [("incomplete", "incomplete"), ("completed",) * 2])
async def test_the_last_event_of_a_response_tells_how_it_ended(status: str, kind: str) -> None:
    response = ResponsesResponse.from_request(
        ResponsesRequest(input="a"),
        SamplingParams(max_tokens=2),
        model_name="m",
        created_time=1,
        output=[],
        status=status,
    )
    stock = ResponseCompletedEvent(type="response.completed", sequence_number=7, response=response)

    async def events() -> AsyncGenerator[Any, None]:
        yield stock

    (told,) = [event async for event in truthful(events())]
    sent = json.loads(told.model_dump_json(indent=None, by_alias=True))
    expected = json.loads(stock.model_dump_json(indent=None, by_alias=True))
    assert sent == {**expected, "type": f"response.{kind}"}


def blank(kind: Any) -> Any:
    """Return a serving object of vLLM's without its parts."""
    return kind.__new__(kind)


async def test_vllms_routes_find_the_mended_classes_with_the_stock_state() -> None:
    state = State()
    state.anthropic_serving_messages = blank(AnthropicServingMessages)
    state.openai_serving_responses = blank(OpenAIServingResponses)
    state.serving_tokenization = blank(ServingTokenization)
    state.openai_serving_responses.response_store = store = {"one": "response"}
    serve_mended(state, 10)
    assert type(state.anthropic_serving_messages) is MessagesServing
    assert type(state.openai_serving_responses) is ResponsesServing
    assert state.openai_serving_responses.response_store is store
    with pytest.raises(BadRequestError, match="10 is no token"):
        await state.serving_tokenization.create_detokenize(DetokenizeRequest(tokens=[10]), None)


def test_a_model_without_a_dialect_has_nothing_to_mend() -> None:
    state = State()
    state.anthropic_serving_messages = state.openai_serving_responses = None
    state.serving_tokenization = blank(ServingTokenization)
    serve_mended(state, 10)
    assert state.anthropic_serving_messages is state.openai_serving_responses is None
