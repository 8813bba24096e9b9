"""Lists that pydantic checks when they are read."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError

from service.api.lazy_lists import read, reading_lists
from service.api.requests import ChatRequest
from service.api.validation import from_validation


def chat(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Hi"}, *messages]}


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (chat({"role": "user", "content": [{"type": "text", "text": 5}]}),
         "messages[1].content[0].text"),
        (chat({"role": "user", "content": [{"type": "text"}]}), "messages[1].content[0].text"),
        (chat({"role": "user", "content": [{"type": "cinema"}]}), "messages[1].content[0].type"),
        (chat({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}),
         "messages[1].content[0].image_url.url"),
    ],
)  # fmt: skip
async def test_a_wrong_entry_is_refused_with_its_path(body: dict[str, Any], param: str) -> None:
    @reading_lists
    async def endpoint(request: ChatRequest) -> None:
        raise AssertionError("it was called")

    with pytest.raises(RequestValidationError) as caught:
        await endpoint(request=ChatRequest.model_validate(body))
    refused = from_validation(caught.value.errors(), body)
    assert refused.param == param, refused.message
    for internal in ("Iterator", "ChatCompletion", "http"):
        assert internal not in refused.message


def test_good_entries_become_lists() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    body = chat(
        {"role": "user", "content": parts},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
    )
    request = read(ChatRequest.model_validate(body))
    assert list(request.messages[1]["content"]) == parts
    assert list(request.messages[1]["content"]) == parts, "it can be read twice"
    assert list(request.messages[2]["tool_calls"]) == [CALL]
