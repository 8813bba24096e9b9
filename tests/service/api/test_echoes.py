"""Echoed prompts where vLLM loses them, and the token that an echo alone throws away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.outputs import CompletionOutput

from service.api.echoes import echo_is_lost, keep_prompt_only, with_prompts


def asks(**fields: Any) -> CompletionRequest:
    return CompletionRequest(prompt="a", **fields)


@pytest.mark.parametrize(
    ("echo", "ids", "lost"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_an_echo_is_lost_beside_token_ids(echo: bool, ids: bool, lost: bool) -> None:
    assert echo_is_lost(asks(echo=echo, return_token_ids=ids)) is lost


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        ({"echo": True, "max_tokens": 0}, []),
        ({"echo": True, "max_tokens": 1}, [5]),
        ({"echo": False, "max_tokens": 1}, [5]),
    ],
)
def test_an_echo_alone_has_no_token(fields: dict[str, Any], left: list[int]) -> None:
    output = CompletionOutput(0, "x", [5], None, None)
    keep_prompt_only(asks(**fields), output)
    assert output.token_ids == left


async def test_the_first_event_of_each_choice_has_its_prompt() -> None:
    def event(index: int, text: str, prompt_token_ids: list[int] | None) -> str:
        choice = {"index": index, "text": text, "prompt_token_ids": prompt_token_ids}
        return f"data: {orjson.dumps({'choices': [choice]}).decode()}\n\n"

    stock = [event(at, "x", [1]) for at in range(4)] + [event(2, '"y"', None), "data: [DONE]\n\n"]

    async def chunks() -> AsyncIterator[str]:
        for chunk in stock:
            yield chunk

    told = [chunk async for chunk in with_prompts(chunks(), ["é", "ñ"], 2)]
    texts = [orjson.loads(chunk[6:])["choices"][0]["text"] for chunk in told[:5]]
    assert texts == ["éx", "éx", "ñx", "ñx", '"y"']
    assert told[4:] == stock[4:]
