"""The end of a stream with a tool parser: the same text and reason as without ``stream``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from vllm.config import ModelConfig
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.parser import Parser, ParserManager
from vllm.tokenizers import cached_tokenizer_from_config

from service.api.held_back import WholeAtTheEnd, finish_reason, same_reasons, unsent
from service.embedded_model import embedded_model_dir

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALL = '<tool_call>\n{"name": "weather", "arguments": {}}\n</tool_call>'
TEXTS = [
    "No call at all.",
    "I will now <tool_",
    'Before <tool_call>\n{"name": "weather", ',
    "<tool_call>\n{name: x}\n</tool_call> ok",
    f"Before {CALL}",
    "",
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """The embedded model's."""
    return cached_tokenizer_from_config(ModelConfig(str(embedded_model_dir())))


def asks(**fields: Any) -> ChatCompletionRequest:
    return ChatCompletionRequest(
        messages=[{"role": "user", "content": "x"}], **{"tools": [TOOL], **fields}
    )


def made(tokenizer: Any) -> Parser:
    """Return vLLM's parser of a server that finds calls as Hermes writes them."""
    kind = ParserManager.get_parser("hermes", None, True)
    assert kind is not None
    return kind(tokenizer, asks().tools)


@pytest.mark.parametrize("text", TEXTS)
def test_a_stream_sends_the_text_of_the_whole_answer(tokenizer: Any, text: str) -> None:
    request = asks()
    parser = WholeAtTheEnd(made(tokenizer), lambda: made(tokenizer), auto=True)
    _, content, calls = made(tokenizer).parse(text, request, True)
    sent = ""
    for token_id in tokenizer.encode(text):
        delta = parser.parse_delta(
            tokenizer.decode([token_id]), [token_id], request, [1], finished=False
        )
        sent += (delta.content or "") if delta is not None else ""
    begun = sent
    delta = parser.parse_delta("", [], request, [1], finished=True)
    sent += (delta.content or "") if delta is not None else ""
    assert sent == (content or "")
    assert text.startswith(begun)
    assert parser.called == bool(calls) == (CALL in text)


@pytest.mark.parametrize(
    ("content", "sent", "rest"),
    [("ab", "a", "b"), ("ab", "ab", ""), ("ab", "", "ab"), ("ab", "\nab", ""), ("", "a", "")],
)
def test_the_rest_of_a_content_follows_its_beginning_only(
    content: str, sent: str, rest: str
) -> None:
    assert unsent(content, sent) == rest


@pytest.mark.parametrize(
    ("told", "choice", "called", "auto", "right"),
    [
        ("tool_calls", "auto", False, True, "stop"),
        ("tool_calls", "auto", True, True, "tool_calls"),
        ("tool_calls", "auto", True, False, "stop"),
        ("length", "auto", True, True, "tool_calls"),
        ("length", "auto", False, True, "length"),
        ("stop", "none", True, True, "stop"),
        ("stop", "required", False, True, "tool_calls"),
        ("length", "required", True, True, "length"),
        ("stop", {"type": "function", "function": {"name": "weather"}}, True, True, "stop"),
    ],
)
def test_a_reason_is_the_whole_answers(
    told: str, choice: Any, called: bool, auto: bool, right: str
) -> None:
    request = asks(tool_choice=choice)
    assert finish_reason(told, request, called=called, auto=auto) == right


async def test_the_last_event_of_a_choice_tells_the_reason(tokenizer: Any) -> None:
    def event(**choice: Any) -> str:
        return f"data: {orjson.dumps({'choices': [choice]}).decode()}\n\n"

    parser = made(tokenizer)
    parsers = [WholeAtTheEnd(parser, lambda: parser, auto=True) for _ in range(2)]
    parsers[1].called = True
    text = {"content": '"finish_reason":"stop"'}
    plain = [event(index=0, delta=text, finish_reason=None), "data: [DONE]\n\n"]
    ended = [event(index=at, delta=text, finish_reason="tool_calls") for at in range(2)]

    async def chunks() -> AsyncIterator[str]:
        for chunk in (*plain, *ended):
            yield chunk

    told = [chunk async for chunk in same_reasons(chunks(), parsers, asks(), auto=True)]
    assert told[:2] == plain
    reasons = [orjson.loads(chunk[6:])["choices"][0] for chunk in told[2:]]
    assert [reason["finish_reason"] for reason in reasons] == ["stop", "tool_calls"]
    assert all(reason["delta"] == text for reason in reasons)
