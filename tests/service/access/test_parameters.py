"""vLLM's refusals in our form."""

from __future__ import annotations

from typing import Any

import pytest
from vllm.entrypoints.serve.engine.protocol import ErrorInfo
from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
from vllm.exceptions import VLLMError, VLLMValidationError
from vllm.sampling_params import SamplingParams, StructuredOutputsParams

from service.access.parameters import MAX_MESSAGE, body_of
from service.api.requests import ChatRequest, TextRequest

CHAT = {"messages": 1, "max_tokens": 1, "model": 1}


def told(error: Exception, *sent: str) -> tuple[str | None, str]:
    """Return the field that a refusal names, and its message."""
    body = body_of(create_error_response(error).error, sent)["error"]
    assert body["code"] is None
    return body["param"], body["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"min_tokens": 3}, "min_tokens"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"frequency_penalty": -3}, "frequency_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"top_k": -2}, "top_k"),
        ({"min_p": 2}, "min_p"),
        ({"temperature": -1}, "temperature"),
    ],
)
def test_a_refused_sampling_parameter_is_named(fields: dict[str, Any], param: str) -> None:
    for request in (
        ChatRequest(messages=[{"role": "user", "content": "Hi"}], **fields),
        TextRequest(prompt="Hi", **fields),
    ):
        with pytest.raises(VLLMError) as refusal:
            request.to_sampling_params(2, {})
        named, message = told(refusal.value, *fields)
        assert named == param
        assert message.startswith(f"{param}: ")
        assert message.count(param) == 1
        assert "parameter=" not in message


@pytest.mark.parametrize(
    ("field", "sent", "blamed"),
    [
        ("max_tokens", "max_tokens", "max_tokens"),
        ("max_tokens", "max_completion_tokens", "max_completion_tokens"),
        ("max_tokens", "max_output_tokens", "max_output_tokens"),
        ("structured_outputs", "response_format", "response_format"),
        ("structured_outputs", "text", "text"),
        ("input_tokens", "messages", "messages"),
        ("prompt", "messages", "messages"),
        ("prompt", "nothing", "prompt"),
        ("body.messages.0.role", "messages", "messages[0].role"),
        ("response_format.json_schema", "response_format", "response_format.json_schema"),
    ],
)
def test_the_field_that_was_sent_is_blamed(field: str, sent: str, blamed: str) -> None:
    error = VLLMValidationError("no good", parameter=field, value={"a": 1})
    assert told(error, sent, "model") == (blamed, f"{blamed}: no good")


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("Token id 49152 is out of vocabulary", "prompt"),
        ("You must pass at least one prompt", "prompt"),
        ("The decoder prompt cannot be empty", "prompt"),
        ('"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
         "tool_choice"),
        ('tool_choice="required" requires --tool-call-parser to be set', "tool_choice"),
        ("Grammar error: no rule", "structured_outputs"),
        ("Cannot set both `continue_final_message` and `add_generation_prompt` to True.",
         "continue_final_message"),
        ("thinking_token_budget is set but reasoning_config is not", "thinking_token_budget"),
        ("Something else", None),
    ],
)  # fmt: skip
def test_words_name_the_field(message: str, param: str | None) -> None:
    assert told(ValueError(message), "prompt")[0] == param


def test_no_words_of_the_servers_own_failures_are_read() -> None:
    error = ErrorInfo(message="The grammar of a prompt", type="InternalServerError", code=500)
    assert body_of(error, ())["error"]["param"] is None


@pytest.mark.parametrize("kinds", [{}, {"regex": "a", "choice": ["b"]}])
def test_nothing_internal_is_told(kinds: dict[str, Any]) -> None:
    with pytest.raises(VLLMError) as caught:
        StructuredOutputsParams(**kinds)
    param, message = told(caught.value, "response_format")
    assert param == "response_format"
    assert message.endswith("specified")


def test_a_long_message_is_cut() -> None:
    error = VLLMValidationError("x" * 10_000, parameter="stop")
    assert len(told(error, "stop")[1]) < MAX_MESSAGE + 20


def test_a_model_that_is_not_there_has_a_code() -> None:
    error = ErrorInfo(message="there is none", type="NotFoundError", param="model", code=404)
    assert body_of(error, ())["error"]["code"] == "model_not_found"
    other = ErrorInfo(message="there is none", type="NotFoundError", param="response_id", code=404)
    assert body_of(other, ())["error"]["code"] is None


def test_a_sampling_parameter_of_vllms_own_is_named() -> None:
    with pytest.raises(VLLMError) as caught:
        SamplingParams(temperature=-1)
    assert told(caught.value)[0] == "temperature"
