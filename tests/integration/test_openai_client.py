"""The real openai client against the real server."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from tests.integration.client import Client, array
from tests.integration.servers import MODEL

MESSAGES: list[openai.types.chat.ChatCompletionMessageParam] = [
    {"role": "user", "content": "Describe the sea in one sentence."}
]


@pytest.fixture
def client(v1: Client) -> Iterator[openai.OpenAI]:
    """An openai client of the V1 server that does not try again."""
    url = f"{v1.server.url}/v1"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as found:
        yield found


def test_a_chat_with_logit_bias(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=4, temperature=0, logit_bias={"5065": 100}
    )
    assert answer.choices[0].message.content == " ocean" * 4
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4


def test_a_chat_with_control_and_distribution(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=MESSAGES,
        max_tokens=12,
        temperature=0,
        extra_body={
            "logit_control": {"suppress": [{"text": "the", "ignore_case": True}]},
            "distribution": {"top_k": 5, "stages": ["base", "controlled"]},
        },
    )
    choice = answer.choices[0]
    assert choice.message.content is not None
    assert "the" not in choice.message.content.lower()
    distribution = choice.model_extra["distribution"]  # type: ignore[index]
    assert array(distribution["base"]["logprobs"]).shape == (12, 5)


def test_a_streamed_chat_carries_the_rows_of_each_event(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL,
        messages=MESSAGES,
        max_tokens=10,
        temperature=0,
        logprobs=True,
        top_logprobs=3,
        stream=True,
        extra_body={"distribution": {"top_k": 3, "stages": ["base"]}},
    )
    text, rows = "", 0
    for event in stream:
        for choice in event.choices:
            written = choice.delta.content or ""
            text += written
            distribution = (choice.model_extra or {}).get("distribution")
            if distribution is None:
                assert choice.logprobs is None
                continue
            rows += distribution["positions"]
            assert choice.logprobs is not None
            assert choice.logprobs.content is not None
            assert len(choice.logprobs.content) == distribution["positions"]
            assert "".join(entry.token for entry in choice.logprobs.content) == written
            assert all(len(entry.top_logprobs) == 3 for entry in choice.logprobs.content)
    whole = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=10, temperature=0
    )
    assert text == whole.choices[0].message.content
    assert rows == 10


def test_a_completion_with_echo_and_logprobs(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model=MODEL, prompt="The capital of", max_tokens=3, temperature=0, echo=True, logprobs=2
    )
    choice = answer.choices[0]
    assert choice.text.startswith("The capital of")
    assert choice.logprobs is not None
    assert choice.logprobs.tokens is not None
    assert "".join(choice.logprobs.tokens) == choice.text
    assert choice.logprobs.token_logprobs is not None
    assert choice.logprobs.token_logprobs[0] is None
    assert all(value <= 0 for value in choice.logprobs.token_logprobs[1:])


def test_refusals_raise_the_clients_own_exceptions(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            model=MODEL,
            messages=MESSAGES,
            extra_body={"logit_control": {"bias": [{"token_id": -1, "add": 1}]}},
        )
    assert refused.value.param == "logit_control.bias[0].token_id"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="no-such-model", messages=MESSAGES)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(
            model=MODEL,
            messages=MESSAGES,
            extra_body={"logit_control": {"steer": [{"vector": "none", "strength": 1}]}},
        )


def test_bytes_are_exact_for_parts_of_a_character(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=MESSAGES,
        max_tokens=12,
        temperature=0,
        logprobs=True,
        extra_body={
            "logit_control": {"bias": [{"text": "日本語日本語", "add": 60}]},
        },
    )
    content = answer.choices[0].logprobs.content  # type: ignore[union-attr]
    assert content is not None
    written = b"".join(bytes(entry.bytes or ()) for entry in content)
    assert "日本語".encode() in written
    assert any(entry.token == "\ufffd" for entry in content), "no token was part of a character"
