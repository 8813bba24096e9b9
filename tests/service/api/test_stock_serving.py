"""Mended answers of vLLM's own routes."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from vllm.entrypoints.anthropic.protocol import AnthropicMessagesResponse
from vllm.entrypoints.openai.responses.protocol import (
    ResponseCompletedEvent,
    ResponsesRequest,
    ResponsesResponse,
)
from vllm.sampling_params import SamplingParams

from service.api.stock_serving import MessagesAnswer, truthful


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
