"""Fields that a route does not know: which are refused, and which are passed over and listed."""

from __future__ import annotations

from typing import Any

import pytest
from vllm.entrypoints.anthropic.protocol import AnthropicMessagesRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest

from service.api.requests import ChatRequest, TextRequest
from service.api.unknown_fields import MAX_LISTED, MAX_UNKNOWN, check_unknown, listed
from service.errors import BadRequestError
from service.schemas.sight import ScoreRequest

MODELS = {
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": TextRequest,
    "/v1/responses": ResponsesRequest,
    "/v1/messages": AnthropicMessagesRequest,
    "/v1/score": ScoreRequest,
}
CHAT, TEXT, RESPONSES, MESSAGES, SCORE = MODELS


def ignored(path: str = CHAT, **body: Any) -> list[str]:
    """Return what a route passes over."""
    return check_unknown(path, MODELS[path], body)


def refused(path: str = CHAT, **body: Any) -> tuple[str | None, str]:
    """Return the field that is refused, and the words."""
    with pytest.raises(BadRequestError) as caught:
        ignored(path, **body)
    assert caught.value.code == "unknown_field"
    return caught.value.param, caught.value.message


@pytest.mark.parametrize(
    ("path", "body", "param", "right"),
    [
        # Misspelt.
        (CHAT, {"logit_controls": {"bias": [1]}}, None, "logit_control?"),
        (TEXT, {"Logit-Control": {"bias": [1]}}, None, "logit_control?"),
        (CHAT, {"distributions": {"top_k": 5}}, None, "distribution?"),
        (CHAT, {"temprature": 1}, None, "temperature?"),
        (CHAT, {"supress": [1]}, None, "logit_control.suppress?"),
        (CHAT, {"bad_word": ["x"]}, None, "bad_words?"),
        (CHAT, {"logit_control": {"supress": [1]}}, "logit_control.supress",
         "logit_control.suppress?"),
        (CHAT, {"logit_control": {"bias": [{"tokenid": 1, "add": 1}]}},
         "logit_control.bias[0].tokenid", "logit_control.bias[0].token_id?"),
        (CHAT, {"structured_outputs": {"regexp": "a"}}, "structured_outputs.regexp",
         "structured_outputs.regex?"),
        (SCORE, {"continuation": [" a"]}, None, "continuations?"),
        # Misplaced.
        (CHAT, {"steer": [1]}, None, "logit_control.steer"),
        (TEXT, {"bias": [1]}, None, "logit_control.bias"),
        (TEXT, {"suppress": [1]}, None, "logit_control.suppress"),
        (SCORE, {"force": {"text": "a"}}, None, "logit_control.force"),
        (CHAT, {"stages": ["base"]}, None, "distribution.stages"),
        (RESPONSES, {"suppress": [1]}, None,
         "logit_control.suppress of /v1/chat/completions or /v1/completions"),
        # Another server's.
        (TEXT, {"extra_body": {"logit_control": {}}}, None, "its fields at the top level"),
        (CHAT, {"guided_json": {"type": "integer"}}, None, "structured_outputs.json"),
        (RESPONSES, {"guided_json": {"type": "integer"}}, None, "structured_outputs.json"),
        (MESSAGES, {"guided_json": {"type": "integer"}}, None, "output_config.format"),
        (RESPONSES, {"response_format": {"type": "json_object"}}, None, "text.format"),
        (TEXT, {"grammar": "root ::= x"}, None, "structured_outputs.grammar"),
        (CHAT, {"banned_strings": ["x"]}, None, "logit_control.suppress"),
        (TEXT, {"max_completion_tokens": 3}, None, "max_tokens"),
        (RESPONSES, {"max_tokens": 3}, None, "max_output_tokens"),
        (CHAT, {"n_predict": 3}, None, "max_tokens"),
        (MESSAGES, {"stop": ["x"]}, None, "stop_sequences"),
        (CHAT, {"response_format": {"type": "json_object", "schema": {"type": "object"}}},
         "response_format.schema", "response_format.json_schema.schema"),
        # Another route's.
        (MESSAGES, {"seed": 1}, None, "seed of /v1/chat/completions"),
        (TEXT, {"top_logprobs": 3}, None, "top_logprobs of /v1/chat/completions"),
        # What there is not.
        (CHAT, {"dry_multiplier": 0.8}, None, "this server has no DRY sampler"),
        (TEXT, {"xtc_probability": 0.5}, None, "this server has no XTC sampler"),
        (TEXT, {"mirostat_tau": 5}, None, "this server has no mirostat"),
        (TEXT, {"best_of": 2}, None, "this server has no best_of"),
    ],
)  # fmt: skip
def test_what_looks_like_a_control_or_a_constraint_is_refused(
    path: str, body: dict[str, Any], param: str | None, right: str
) -> None:
    told, message = refused(path, **body)
    assert told == (param or next(iter(body)))
    assert right in message


@pytest.mark.parametrize(
    "fields",
    [
        {"verbosity": "low", "prediction": {"type": "content"}},
        {"x_trace": 1, "id_slot": 3, "cache_prompt": True},
        {"models": ["a"], "stores": True},
        # What asks for nothing.
        {"logit_controls": None, "guided_json": None, "grammar": "", "banned_strings": []},
        {"best_of": 1, "n_predict": -1, "typical_p": 1.0, "top_a": 0, "cfg_scale": 1},
        {"dry_multiplier": 0, "dry_base": 1.75, "dry_sequence_breakers": ["\n"]},
        {"mirostat_mode": 0, "mirostat_tau": 5, "mirostat_eta": 0.1},
    ],
)
def test_what_asks_for_nothing_that_is_known_is_listed(fields: dict[str, Any]) -> None:
    assert ignored(messages=[], **fields) == list(fields)


def test_defaults_of_another_route_ask_for_nothing() -> None:
    fields = {"n": 1, "logprobs": False, "min_tokens": 0}
    assert ignored(RESPONSES, input="a", **fields) == list(fields)


def test_the_same_length_under_two_names_is_one() -> None:
    assert ignored(max_tokens=3, max_new_tokens=3) == ["max_new_tokens"]
    assert refused(max_tokens=3, max_new_tokens=4)[0] == "max_new_tokens"


def test_what_is_known_is_not_listed() -> None:
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": "Hi", "own": 1}],
        "logit_control": {"bias": [{"text": "a", "add": 1, "when": {"from": 1}}]},
        "structured_outputs": {"json": {"propertie": {}}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}},
        "stream_options": {"include_obfuscation": False},
        "tools": [{"type": "function", "function": {"name": "f", "own": 1}}],
        "vllm_xargs": {"seeed": 1},
    }
    assert ignored(**body) == []


def test_what_stands_in_known_objects_is_listed_with_its_path() -> None:
    assert ignored(response_format={"type": "text", "own": 1}) == ["response_format.own"]


def test_more_unknown_fields_than_a_client_has_are_refused() -> None:
    fields: dict[str, Any] = {f"own{at}": 1 for at in range(MAX_UNKNOWN)}
    assert len(ignored(**fields)) == MAX_UNKNOWN
    assert refused(**fields, more=1)[0] == "body"


@pytest.mark.parametrize(
    ("names", "value"),
    [
        (["a", "b.c[0].d"], "a, b.c[0].d"),
        (["a b,c\n\u20ac"], "a%20b%2Cc%0A%E2%82%AC"),
        (["x" * 1000], "x" * 80),
    ],
)
def test_a_header_can_hold_any_name(names: list[str], value: str) -> None:
    assert listed(names) == value


def test_a_header_has_an_end() -> None:
    told = listed([str(at) for at in range(MAX_LISTED + 5)])
    assert told.endswith(f"{MAX_LISTED - 1}, and 5 more")


def test_a_plain_model_of_vllms_is_read_too() -> None:
    assert check_unknown("/v1/completions", CompletionRequest | None, {"own": 1}) == ["own"]
