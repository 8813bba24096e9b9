"""Answers of vLLM's routes where stock vLLM misleads a client."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.integration.client import Client
from tests.integration.servers import MODEL
from tests.integration.test_vllm_routes import WEATHER

HELLO = [{"role": "user", "content": "Say hello."}]


def post(v1: Client, path: str, **body: Any) -> httpx.Response:
    """Return the answer to a greedy request."""
    return v1.http.post(path, json={"model": MODEL, "temperature": 0, **body})


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    """Return the events of a stream."""
    assert answer.status_code == 200, answer.text
    lines = answer.text.split("\n")
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("I will now <tool_STOP", {"stop": ["STOP"]}),
        ("I will now <tool", {"max_tokens": 5}),
        ('Before <tool_call>\n{"name": "weather", STOP', {"stop": ["STOP"]}),
        ("<tool_call>\n{name: x}\n</tool_call> ok", {"max_tokens": 16}),
    ],
)
def test_a_stream_tells_what_its_tool_parser_held_back(
    v1: Client, text: str, more: dict[str, Any]
) -> None:
    fields: dict[str, Any] = {"messages": HELLO, "tools": [WEATHER], "max_tokens": 40, **more}
    fields["logit_control"] = {"force": {"text": text}}
    (whole,) = post(v1, "/v1/chat/completions", **fields).json()["choices"]
    parts = [
        part
        for event in events(post(v1, "/v1/chat/completions", **fields, stream=True))
        for part in event["choices"]
    ]
    assert "".join(part["delta"].get("content") or "" for part in parts) == (
        whole["message"]["content"] or ""
    )
    reasons = [part["finish_reason"] for part in parts if part["finish_reason"]]
    assert reasons == [whole["finish_reason"]]


def test_messages_stream_what_the_tool_parser_held_back(v1: Client) -> None:
    tool = {"name": "weather", "input_schema": WEATHER["function"]["parameters"]}
    form = {"type": "json_schema", "schema": {"const": "<tool_call>{"}}
    fields = {"messages": HELLO, "tools": [tool], "output_config": {"format": form}}
    whole = post(v1, "/v1/messages", **fields, max_tokens=40).json()
    assert [part["text"] for part in whole["content"]] == ['"<tool_call>{"']
    streamed = events(post(v1, "/v1/messages", **fields, max_tokens=40, stream=True))
    parts = [event["delta"] for event in streamed if event["type"] == "content_block_delta"]
    assert "".join(part["text"] for part in parts) == '"<tool_call>{"'


def test_a_response_streams_what_the_tool_parser_held_back(v1: Client) -> None:
    tool = {"type": "function", **WEATHER["function"]}
    fields: dict[str, Any] = {"input": "Hello.", "tools": [tool], "max_output_tokens": 40}
    fields["structured_outputs"] = {"regex": "I will now <tool_"}
    streamed = events(post(v1, "/v1/responses", **fields, stream=True))
    parts = [event["delta"] for event in streamed if event["type"].endswith("text.delta")]
    assert "".join(parts) == "I will now <tool_"
    (message,) = streamed[-1]["response"]["output"]
    assert message["content"][0]["text"] == "I will now <tool_"


def test_a_whole_message_says_that_no_stop_sequence_ended_it(v1: Client) -> None:
    message = post(v1, "/v1/messages", messages=HELLO, max_tokens=2).json()
    assert message["stop_reason"] == "max_tokens"
    assert message["stop_sequence"] is None


def test_a_response_that_is_cut_short_ends_as_incomplete(v1: Client) -> None:
    said = {"regex": "Hello there, all of you!"}
    for most, kind in ((2, "incomplete"), (60, "completed")):
        fields: dict[str, Any] = {"input": "Say hello.", "max_output_tokens": most, "stream": True}
        fields["structured_outputs"] = said
        *_, last = events(post(v1, "/v1/responses", **fields))
        assert last["type"] == f"response.{kind}"
        assert last["response"]["status"] == kind


def test_a_message_of_the_assistant_needs_no_type(v1: Client) -> None:
    said = {"role": "assistant", "content": [{"type": "output_text", "text": "Hello."}]}
    answer = post(v1, "/v1/responses", input=[*HELLO, said, *HELLO], max_output_tokens=2)
    assert answer.status_code == 200, answer.text


def test_a_tool_that_the_server_has_not_is_refused(v1: Client) -> None:
    answer = post(v1, "/v1/responses", input="Hello.", tools=[{"type": "web_search"}])
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == "tools[0].type"
    assert "'web_search' is no tool of this server; allowed: function" in error["message"]


def test_tools_need_a_parser_for_their_calls(v2: Client) -> None:
    tool = {"type": "function", **WEATHER["function"]}
    answer = post(v2, "/v1/responses", input="Hello.", tools=[tool])
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == "tools"
    assert "--tool-call-parser" in error["message"]


def test_an_id_of_no_token_has_no_text(v1: Client) -> None:
    for token_id in (49152, 10**9):
        answer = v1.http.post("/detokenize", json={"model": MODEL, "tokens": [1, token_id]})
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert error["param"] == "tokens[1]"
        assert f"{token_id} is no token; allowed: 0 to 49151" in error["message"]


def test_an_echo_comes_with_token_ids_too(v1: Client) -> None:
    prompts = ["The sea is", "Salt and"]
    fields: dict[str, Any] = {"prompt": prompts, "echo": True, "max_tokens": 3, "n": 2}
    fields["temperature"] = 1
    fields["seed"] = 5
    plain = post(v1, "/v1/completions", **fields).json()["choices"]
    told = post(v1, "/v1/completions", **fields, return_token_ids=True).json()["choices"]
    assert [choice["text"] for choice in told] == [choice["text"] for choice in plain]
    assert all(len(choice["token_ids"]) == 3 for choice in told)
    texts = [""] * len(told)
    for event in events(post(v1, "/v1/completions", **fields, return_token_ids=True, stream=True)):
        for choice in event["choices"]:
            texts[choice["index"]] += choice["text"]
    assert texts == [choice["text"] for choice in plain]


def test_an_echo_of_token_ids_has_their_text(v1: Client) -> None:
    tokens = v1.http.post("/tokenize", json={"model": MODEL, "prompt": "The sea"}).json()["tokens"]
    fields: dict[str, Any] = {"prompt": tokens, "echo": True, "max_tokens": 0}
    answer = post(v1, "/v1/completions", **fields, return_token_ids=True).json()
    (choice,) = answer["choices"]
    assert choice["text"] == "The sea"
    assert choice["token_ids"] == []
    assert choice["prompt_token_ids"] == tokens


def test_an_echo_alone_generates_nothing(v1: Client) -> None:
    fields: dict[str, Any] = {"prompt": "The sea is", "echo": True, "max_tokens": 0, "n": 2}
    fields["temperature"] = 1
    for more in ({}, {"logprobs": 1}):
        answer = post(v1, "/v1/completions", **fields, **more).json()
        assert [choice["text"] for choice in answer["choices"]] == ["The sea is"] * 2
        assert answer["usage"]["completion_tokens"] == 0
        assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"]
        options = {"stream": True, "stream_options": {"include_usage": True}}
        *_, last = events(post(v1, "/v1/completions", **fields, **more, **options))
        assert last["usage"]["completion_tokens"] == 0
