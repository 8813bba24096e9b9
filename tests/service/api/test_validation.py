"""pydantic's errors as one refusal, and how much of a client's input it repeats."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest

from logit_processors.checks import ControlError
from service.access.refusal import error_response
from service.api.validation import from_validation
from service.errors import BadRequestError
from service.schemas.sight import ScoreRequest


def refusal(kind: Any, body: Any) -> BadRequestError:
    """Return what is told of a body that is none of a kind."""
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(body)
    errors = [{**each, "loc": ("body", *each["loc"])} for each in caught.value.errors()]
    return from_validation(errors, body)


def message(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Hi"}, fields]}


@pytest.mark.parametrize(
    ("body", "param", "told"),
    [
        (
            message(role="user", content=None),
            "messages[1].content",
            "Input should be a valid list (got null); messages[1].content: Input should be a valid "
            "string (got null)",
        ),
        (message(content="Hi"), "messages[1].role", "Field required"),
        (
            message(role="tool", content="Hi", tool_call_id=3),
            "messages[1].tool_call_id",
            "Input should be a valid string (got 3)",
        ),
        (message(role=3, content="Hi"), "messages[1].role", "Input should be"),
        ({"messages": "Hi"}, "messages", "Input should be a valid list (got 'Hi')"),
        (
            {**message(role="user", content="Hi"), "response_format": {"type": "xml"}},
            "response_format.type",
            "Input should be 'text', 'json_object' or 'json_schema' or 'structural_tag'",
        ),
        (
            {**message(role="user", content="Hi"), "stop": [1]},
            "stop[0]",
            "Input should be a valid string (got 1)",
        ),
    ],
)
def test_of_a_union_only_the_kind_that_was_meant_is_told(
    body: dict[str, Any], param: str, told: str
) -> None:
    refused = refusal(ChatCompletionRequest, body)
    assert refused.param == param, refused.message
    assert refused.message.startswith(told), refused.message
    assert "developer" not in refused.message
    for internal in ("ChatCompletion", "Param", "validation", "http", "[type="):
        assert internal not in refused.message


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": 5}}


def test_a_list_that_vllm_reads_by_itself_is_found() -> None:
    good = {**CALL, "function": {"name": "f", "arguments": "5"}}
    body: dict[str, Any] = {
        "messages": [
            {"role": "assistant", "tool_calls": [good]},
            {"role": "assistant", "tool_calls": [good, CALL]},
        ]
    }
    refused = refusal(ChatCompletionRequest, body)
    assert refused.param == "messages[1].tool_calls[1].function.arguments", refused.message
    assert refused.message == "Input should be a valid string (got 5)"
    body["messages"][1]["tool_calls"][1] = {**CALL, "function": {"arguments": "5"}}
    refused = refusal(ChatCompletionRequest, body)
    assert refused.param == "messages[1].tool_calls[1].function.name", refused.message


@pytest.mark.parametrize(
    ("prompt", "param", "told"),
    [
        ([-1], "prompt[0]", "Input should be greater than or equal to 0 (got -1)"),
        ([[1, -1]], "prompt[0][1]", "Input should be greater than or equal to 0 (got -1)"),
    ],
)
def test_of_a_prompt_only_the_kind_that_was_meant_is_told(
    prompt: Any, param: str, told: str
) -> None:
    refused = refusal(CompletionRequest, {"prompt": prompt})
    assert (refused.param, refused.message) == (param, told)


def test_a_validators_own_field_is_named() -> None:
    body = {"prompt": "a", "continuations": ["b"], "logit_control": {"force": {"text": "c"}}}
    refused = refusal(ScoreRequest, body)
    assert refused.param == "logit_control.force"
    assert refused.message == "the continuations are what is forced here"


class Part(BaseModel):
    """A part with a validator that names a field of it."""

    kind: Literal["a"] = "a"

    def model_post_init(self, _context: Any) -> None:
        raise ControlError("kind", "no kind will do")


def test_a_validators_field_stands_below_the_models() -> None:
    refused = refusal(dict[str, list[Part]], {"parts": [{}]})
    assert (refused.param, refused.message) == ("parts[0].kind", "no kind will do")


def wrong(location: tuple[str | int, ...], value: object) -> dict[str, Any]:
    return {"type": "x", "loc": location, "msg": "Input should be an integer", "input": value}


@pytest.mark.parametrize(("count", "told"), [(1, 1), (10, 10), (11, 10), (5000, 10)])
def test_at_most_ten_errors_are_told(count: int, told: int) -> None:
    errors = [wrong(("body", "numbers", at), "x") for at in range(count)]
    answer = from_validation(errors)
    assert answer.message.count("Input should be") == told
    assert answer.param == "numbers[0]"
    assert (f"and {count - 10} more" in answer.message) is (count > 10)


@given(st.text() | st.integers() | st.floats() | st.lists(st.text()) | st.none())
def test_any_value_can_be_told_of(value: object) -> None:
    answer = from_validation([wrong(("body", "field"), value)])
    assert answer.param == "field"
    assert error_response(answer).status_code == 400


def test_a_long_value_is_cut() -> None:
    answer = from_validation([wrong(("body", "field"), "x" * 100_000)])
    assert "x" * 100 in answer.message
    assert "x" * 201 not in answer.message


def test_a_long_name_of_an_unknown_field_is_cut() -> None:
    answer = from_validation([wrong(("body", "k" * 100_000), 1)])
    assert len(answer.message) < 1000
    assert len(answer.param or "") < 1000


def test_one_answer_echoes_no_more_than_200_characters_in_all() -> None:
    answer = from_validation([wrong(("body", at), "x" * 1000) for at in range(10)])
    assert answer.message.count("x") <= 200 + 1
