"""Errors in streams of /v1/messages, through vLLM's own converter."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from http import HTTPStatus

import pytest
from vllm.entrypoints.anthropic.serving import AnthropicServingMessages
from vllm.exceptions import GracefulHTTPError

from service.api.messages import raising
from service.api.stock_serving import MessagesServing

CHUNK = {
    "id": "a",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 0, "total_tokens": 1},
}
ERROR = {"error": {"message": "the engine hangs", "type": "Gateway Timeout", "code": 504}}


async def chunks() -> AsyncGenerator[str, None]:
    """Yield the stream of a chat: its beginning, an error, and the end that a success has."""
    for told in (CHUNK, ERROR):
        yield f"data: {json.dumps(told)}\n\n"
    yield "data: [DONE]\n\n"


async def test_an_error_reaches_its_client_in_its_own_words() -> None:
    stock = AnthropicServingMessages.__new__(AnthropicServingMessages)
    serving = MessagesServing.adopt(stock)
    events = [event async for event in serving.message_stream_converter(chunks())]
    assert events[0].startswith("event: message_start\n")
    assert events[-1].startswith("event: error\n")
    told = json.loads(events[-1].partition("data: ")[2])
    assert (told["type"], told["error"]["message"]) == ("error", "the engine hangs")
    assert not any("message_stop" in event for event in events)


async def test_the_error_keeps_its_status() -> None:
    with pytest.raises(GracefulHTTPError, match="hangs") as raised:
        async for _ in raising(chunks()):
            pass
    assert raised.value.http_status == HTTPStatus.GATEWAY_TIMEOUT
