"""What stock vLLM serves is served here too, and control works inside of it."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from tests.integration.client import Client
from tests.integration.servers import MODEL

QUESTION = [{"role": "user", "content": "Is the sea salty? Answer yes or no."}]
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}},
            "required": ["city"],
        },
    },
}


def chat(v1: Client, **fields: Any) -> Any:
    """Return the first choice of a greedy chat."""
    body = {"model": MODEL, "messages": QUESTION, "temperature": 0, "max_tokens": 24, **fields}
    answer = v1.http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]


def test_models_are_listed(v1: Client) -> None:
    assert [model["id"] for model in v1.http.get("/v1/models").json()["data"]] == [MODEL]


def test_a_model_is_described_as_it_is_listed(v1: Client) -> None:
    client = openai.OpenAI(base_url=f"{v1.http.base_url}/v1", api_key="none")
    with client:
        found = client.models.retrieve(MODEL)
        (listed,) = client.models.list().data
        assert (found.id, found.owned_by) == (listed.id, listed.owned_by)
        with pytest.raises(openai.NotFoundError, match="'a/b' does not exist"):
            client.models.retrieve("a/b")
        with pytest.raises(openai.NotFoundError, match="/v1/embeddings'"):
            client.embeddings.create(model=MODEL, input="x")


def test_the_list_of_models_may_have_a_slash_behind_it(v1: Client) -> None:
    listed, slashed = (v1.http.get(path).json() for path in ("/v1/models", "/v1/models/"))
    assert [model["id"] for model in slashed["data"]] == [model["id"] for model in listed["data"]]


@pytest.mark.parametrize("path", ["/health", "/ready", "/v1/models", "/v1/vectors", "/playground/"])
def test_head_is_answered_where_get_is(v1: Client, path: str) -> None:
    head = v1.http.head(path)
    assert (head.status_code, head.content) == (200, b"")


def test_the_root_leads_to_the_page(v1: Client) -> None:
    answer = v1.http.get("/", follow_redirects=True)
    assert (answer.status_code, answer.url.path) == (200, "/playground/")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": QUESTION, "max_tokens": 1}),
        ("/v1/completions", {"prompt": "Hi", "max_tokens": 1}),
        ("/v1/responses", {"input": "Hi", "max_output_tokens": 1}),
        ("/v1/messages", {"messages": QUESTION, "max_tokens": 1}),
    ],
)
def test_events_are_not_held_back(v1: Client, path: str, body: dict[str, Any]) -> None:
    answer = v1.http.post(path, json={"model": MODEL, "stream": True} | body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    told = answer.headers["x-accel-buffering"], answer.headers["cache-control"]
    assert told == ("no", "no-cache")


def test_text_becomes_tokens_and_text_again(v1: Client) -> None:
    text = "Sea, salt & höhe"
    tokens = v1.http.post("/tokenize", json={"model": MODEL, "prompt": text}).json()["tokens"]
    again = v1.http.post("/detokenize", json={"model": MODEL, "tokens": tokens})
    assert again.json()["prompt"] == text


def test_responses_are_served(v1: Client) -> None:
    client = openai.OpenAI(base_url=f"{v1.http.base_url}/v1", api_key="none")
    with client:
        response = client.responses.create(model=MODEL, input="Say hello.", max_output_tokens=8)
    assert response.usage is not None
    assert 0 < response.usage.output_tokens <= 8
    assert response.output_text


def test_messages_are_served(v1: Client) -> None:
    body = {"model": MODEL, "max_tokens": 8, "messages": QUESTION}
    answer = v1.http.post("/v1/messages", json=body)
    assert answer.status_code == 200, answer.text
    message = answer.json()
    assert message["role"] == "assistant"
    assert message["content"][0]["type"] == "text"


def test_a_named_tool_is_called_under_control(v1: Client) -> None:
    named = {"type": "function", "function": {"name": "weather"}}
    arguments = []
    for control in (None, {"bias": [{"text": "Oslo", "add": 5.0}]}):
        choice = chat(v1, tools=[WEATHER], tool_choice=named, logit_control=control, max_tokens=99)
        (call,) = choice["message"]["tool_calls"]
        assert call["function"]["name"] == "weather"
        arguments.append(call["function"]["arguments"])
    assert arguments[0] != arguments[1]


def test_a_bias_moves_an_answer_inside_its_grammar(v1: Client) -> None:
    for wanted in ("yes", "no"):
        bias = {"bias": [{"text": wanted, "add": 30.0}]}
        choice = chat(v1, structured_outputs={"choice": ["yes", "no"]}, logit_control=bias)
        assert choice["message"]["content"] == wanted


def test_a_schema_holds_under_suppression(v1: Client) -> None:
    schema = {
        "type": "object",
        "properties": {"salty": {"type": "boolean"}},
        "required": ["salty"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "sea", "schema": schema}}
    for banned, left in (("true", False), ("false", True)):
        control = {"suppress": [{"text": banned}]}
        choice = chat(v1, response_format=form, logit_control=control, max_tokens=60)
        assert json.loads(choice["message"]["content"]) == {"salty": left}
