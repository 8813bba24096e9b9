"""Bad input: a clear error with the field's path, and nothing else happens."""

from __future__ import annotations

from typing import Any

import pytest
import safetensors.numpy

from tests.integration.client import Client
from tests.integration.servers import MODEL

VOCABULARY = 49152
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}


def _control(**fields: Any) -> dict[str, Any]:
    return {"logit_control": fields}


# (fields of the request, status, param)
REFUSED: list[tuple[dict[str, Any], int, str]] = [
    (_control(bias=[{"token_id": 5, "add": 101}]), 400, "logit_control.bias[0].add"),
    (_control(bias=[{"token_id": -1, "add": 1}]), 400, "logit_control.bias[0].token_id"),
    (_control(bias=[{"token_id": VOCABULARY, "add": 1}]), 400, "logit_control.bias[0].token_id"),
    (_control(bias=[{"token_id": 2**70, "add": 1}]), 400, "logit_control.bias[0].token_id"),
    (_control(bias=[{"text": "", "add": 1}]), 400, "logit_control.bias[0].text"),
    (_control(bias=[{"text": "x" * 257, "add": 1}]), 400, "logit_control.bias[0].text"),
    (_control(bias=[{"text": "x", "token_id": 1, "add": 1}]), 400, "logit_control.bias[0]"),
    (_control(bias=[{"token_id": 1, "add": 1}] * 1025), 400, "logit_control.bias"),
    (_control(suppress=[{"text": str(i)} for i in range(65)]), 400, "logit_control"),
    (_control(suppress=[{"token_id": 1, "when": {"from": 3, "until": 3}}]), 400,
     "logit_control.suppress[0].when.until"),
    (_control(steer=[{"vector": "absent", "strength": 1}]), 404,
     "logit_control.steer[0].vector"),
    (_control(steer=[{"vector": "absent", "strength": 1e38}]), 400,
     "logit_control.steer[0].strength"),
    (_control(force={"token_ids": [1, VOCABULARY]}), 400, "logit_control.force.token_ids[1]"),
    (_control(force={"token_ids": [7]}, suppress=[{"token_id": 7}]), 400, "logit_control.force"),
    (_control(unknown=[]), 400, "logit_control.unknown"),
    ({"logit_bias": {"abc": 1}}, 400, "logit_bias['abc']"),
    ({"logit_bias": {"1": 1, "01": 1}}, 400, "logit_bias['01']"),
    ({"logit_bias": {"1": 101}}, 400, "logit_bias['1']"),
    ({"distribution": {"top_k": VOCABULARY + 1}}, 400, "distribution.top_k"),
    ({"distribution": {"top_k": 0}}, 400, "distribution.top_k"),
    ({"distribution": {"stages": []}}, 400, "distribution.stages"),
    ({"distribution": {"top_p": 0}}, 400, "distribution.top_p"),
    ({"logprobs": True, "top_logprobs": 1001}, 400, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": VOCABULARY + 1}, 400, "top_logprobs"),
    ({"prompt_logprobs": -1}, 400, "prompt_logprobs"),
    ({"distribution": {"top_k": "all", "encoding": "json"}, "max_tokens": 900}, 400,
     "distribution"),
    ({"use_beam_search": True, "n": 2, **_control(bias=[{"token_id": 1, "add": 1}])}, 400,
     "use_beam_search"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "status", "param"), REFUSED)
def test_bad_values_are_refused(
    v1: Client, fields: dict[str, Any], status: int, param: str
) -> None:
    got, error = v1.refused("/v1/chat/completions", BODY | fields)
    assert (got, error["param"]) == (status, param), error
    assert error["message"].startswith(f"{param}: ")
    assert len(error["message"]) < 2000
    assert error["code"] is None or isinstance(error["code"], str)


@pytest.mark.parametrize("runner", ["v1", "v2"])
@pytest.mark.parametrize(
    ("field", "value"),
    [("stop_token_ids", list(range(100, 228))), ("bad_words", ["sea " * 1100])],
)
def test_what_would_end_vllms_v2_runner_never_comes_there(
    v1: Client, v2: Client, runner: str, field: str, value: Any
) -> None:
    client = {"v1": v1, "v2": v2}[runner]
    body = {"model": MODEL, "prompt": "Hi", "max_tokens": 2, "min_tokens": 1, field: value}
    status, error = client.refused("/v1/completions", body)
    assert (status, error["param"]) == (400, field), error
    # As much as there is room for is answered.
    fewer = {"stop_token_ids": value[:127], "bad_words": ["sea " * 500]}[field]
    assert client.http.post("/v1/completions", json=body | {field: fewer}).is_success


CHAT, TEXT, RESPONSES, MESSAGES = (
    *("/v1/chat/completions", "/v1/completions"),
    *("/v1/responses", "/v1/messages"),
)
USER = {"role": "user", "content": "Hi"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": 5}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
BODIES: dict[str, dict[str, Any]] = {
    CHAT: BODY,
    TEXT: {"model": MODEL, "prompt": "Hi", "max_tokens": 2},
    RESPONSES: {"model": MODEL, "input": "Hi", "max_output_tokens": 2},
    MESSAGES: {"model": MODEL, "messages": [USER], "max_tokens": 2},
    "/v1/chat/completions/batch": {"model": MODEL, "messages": [[USER]], "max_tokens": 2},
    "/v1/score": {"prompt": "Hi", "continuations": [" all"]},
    "/v1/lens": {"prompt": "Hi", "layers": [0]},
    "/tokenize": {"model": MODEL},
}
# (route, fields, what the message begins with)
LED: list[tuple[str, dict[str, Any], str]] = [
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]},
     "messages[0].content[0].text: Input should be a valid string (got 5)"),
    (CHAT, {"messages": [USER, {"role": "assistant", "tool_calls": [CALL]}]},
     "messages[1].tool_calls[0].function.arguments: "),
    (CHAT, {"messages": [{"role": "user", "content": None}]}, "messages[0].content: "),
    (CHAT, {"messages": [{"content": "Hi"}]}, "messages[0].role: Field required"),
    (CHAT, {"messages": []}, "messages: "),
    (CHAT, {"max_tokens": None, "max_completion_tokens": 0}, "max_completion_tokens: "),
    (CHAT, {"tools": []}, "tools: "),
    (CHAT, {"stream_options": {"include_usage": True}}, "stream_options: "),
    (CHAT, {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
     "response_format.json_schema.schema: "),
    (CHAT, {"structured_outputs": {}}, "structured_outputs: "),
    (CHAT, {"messages": [{"role": "user", "content": "sea " * 2000}]}, "messages: "),
    (TEXT, {"prompt": ""}, "prompt: "),
    (TEXT, {"prompt": []}, "prompt: "),
    (TEXT, {"prompt": [""]}, "prompt: "),
    (TEXT, {"prompt": [[]]}, "prompt: "),
    (TEXT, {"prompt": [VOCABULARY]}, "prompt: "),
    (TEXT, {"prompt": [-1]}, "prompt[0]: Input should be greater than or equal to 0 (got -1)"),
    (RESPONSES, {"max_output_tokens": 0}, "max_output_tokens: "),
    (RESPONSES, {"input": [{"role": "user", "content": 5}]}, "input"),
    (MESSAGES, {"messages": [{"role": "robot", "content": "Hi"}]}, "messages[0].role: "),
    ("/tokenize", {"messages": [{"content": "Hi"}]}, "messages[0].role: "),
]  # fmt: skip
INTERNAL = ("http", "Iterator", "Param", "validation error", "[type=", "parameter=", "{'", "body.")


@pytest.mark.parametrize(("route", "fields", "led"), LED)
def test_a_message_begins_with_the_field_that_was_sent(
    v1: Client, route: str, fields: dict[str, Any], led: str
) -> None:
    answer = v1.http.post(route, json=BODIES[route] | fields)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["message"].startswith(led), error
    assert not any(word in error["message"] for word in INTERNAL), error
    if route != MESSAGES:
        assert error["message"].startswith(f"{error['param']}: "), error
        assert error["code"] is None


# (route, fields, what the message tells)
UNKNOWN: list[tuple[str, dict[str, Any], str]] = [
    (TEXT, {"extra_body": {"logit_control": {}}}, "its fields at the top level"),
    (TEXT, {"logit_controls": {"suppress": [{"text": " of"}]}}, "logit_control?"),
    (TEXT, {"suppress": [{"text": " of"}]}, "logit_control.suppress"),
    (TEXT, {"banned_strings": [" of"]}, "logit_control.suppress"),
    (TEXT, {"guided_choice": ["yes", "no"]}, "structured_outputs.choice"),
    (TEXT, {"guided_json": {"type": "integer"}}, "structured_outputs.json"),
    (TEXT, {"grammar": 'root ::= "yes"'}, "structured_outputs.grammar"),
    (TEXT, {"json_schema": {"type": "integer"}}, "structured_outputs.json"),
    (TEXT, {"max_tokens": None, "max_completion_tokens": 3}, "max_tokens"),
    (CHAT, {"steer": [{"vector": "calm", "strength": 1}]}, "logit_control.steer"),
    (CHAT, {"xtc_probability": 0.5}, "no XTC sampler"),
    (RESPONSES, {"guided_json": {"type": "integer"}}, "structured_outputs.json"),
    (MESSAGES, {"seed": 1}, "/v1/chat/completions"),
    ("/v1/chat/completions/batch", {"guided_regex": "a"}, "structured_outputs.regex"),
    ("/v1/score", {"bias": []}, "bias: "),
    ("/v1/lens", {"bias": [1]}, "logit_control.bias"),
]


@pytest.mark.parametrize(("route", "fields", "right"), UNKNOWN)
def test_what_looks_like_a_control_is_refused_on_every_route(
    v1: Client, route: str, fields: dict[str, Any], right: str
) -> None:
    answer = v1.http.post(route, json=BODIES[route] | fields)
    assert answer.status_code == 400, answer.text
    message = answer.json()["error"]["message"]
    assert message.startswith(f"{list(fields)[-1]}: "), message
    assert right in message


def test_a_schema_of_a_json_object_is_refused(v1: Client) -> None:
    wanted = {"type": "json_object", "schema": {"type": "object"}}
    status, error = v1.refused(CHAT, BODY | {"response_format": wanted})
    assert (status, error["param"], error["code"]) == (
        *(400, "response_format.schema"),
        "unknown_field",
    )


@pytest.mark.parametrize("route", [CHAT, TEXT, RESPONSES, MESSAGES])
@pytest.mark.parametrize("stream", [False, True])
def test_other_unknown_fields_are_listed_in_a_header(v1: Client, route: str, stream: bool) -> None:
    body = BODIES[route] | {"x_trace": 1, "banned_strings": [], "stream": stream}
    answer = v1.http.post(route, json=body)
    assert answer.is_success, answer.text
    assert answer.headers["x-sensefield-ignored-fields"] == "x_trace, banned_strings"
    known = v1.http.post(route, json=BODIES[route] | {"stream": stream})
    assert "x-sensefield-ignored-fields" not in known.headers


def test_a_compressed_body_is_refused(v1: Client) -> None:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    for route in (CHAT, RESPONSES):
        answer = v1.http.post(route, content=b"\x1f\x8b\x08", headers=headers)
        assert answer.status_code == 415
        assert answer.json()["error"]["param"] == "content-encoding"


def test_each_route_names_its_own_fields(v1: Client) -> None:
    body = {"model": MODEL, "prompt": "Hi", "max_tokens": 4}
    status, error = v1.refused("/v1/completions", body | {"logprobs": VOCABULARY + 1})
    assert (status, error["param"]) == (400, "logprobs")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("temperature", -1), ("top_p", 2), ("top_k", -2), ("min_p", 2), ("n", 129)),
        *(("presence_penalty", 3), ("repetition_penalty", 0), ("max_tokens", 0)),
    ],
)
def test_vllms_own_routes_name_sampling_parameters(v1: Client, field: str, value: float) -> None:
    body = {"messages": [BODY["messages"]], "max_tokens": 2, field: value}
    status, error = v1.refused("/v1/chat/completions/batch", body)
    assert (status, error["param"]) == (400, field), error


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_refused(v1: Client, number: str) -> None:
    body = (
        f'{{"model": "{MODEL}", "messages": [{{"role": "user", "content": "Hi"}}], '
        f'"logit_control": {{"bias": [{{"token_id": 1, "add": {number}}}]}}}}'
    )
    answer = v1.http.post(
        "/v1/chat/completions", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "logit_control.bias[0].add"


def test_bodies_that_are_no_requests_are_refused(v1: Client) -> None:
    json = {"content-type": "application/json"}
    for content, headers, status in [
        (b"{", json, 400),
        (b'{"model": 1', {"content-type": "text/plain"}, 415),
        (b"[" * 100_000, json, 400),
        (b'{"messages": "\\ud800"}', json, 400),
    ]:
        answer = v1.http.post("/v1/chat/completions", content=content, headers=headers)
        assert answer.status_code == status, answer.text
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_many_errors_are_told_in_part(v1: Client) -> None:
    entries = [{"token_id": "x" * 1000, "add": "y"}] * 40
    status, error = v1.refused("/v1/chat/completions", BODY | _control(bias=entries))
    assert status == 400
    assert error["message"].count("logit_control.bias[") == 10
    assert "x" * 201 not in error["message"]


def test_a_grammar_that_suppression_empties_ends_only_its_request(v1: Client) -> None:
    choice = {"structured_outputs": {"choice": ["yes", "no"]}}
    doomed = {**BODY, **choice, **_control(suppress=[{"text": "y"}, {"text": "n"}])}
    status, error = v1.refused("/v1/chat/completions", doomed)
    assert status == 400
    assert error["param"] == "logit_control.suppress"
    events = v1.events("/v1/chat/completions", doomed)
    assert "error" in events[-1]
    spared = v1.http.post("/v1/chat/completions", json={**BODY, **choice}).json()
    assert spared["choices"][0]["message"]["content"] in ("yes", "no")


SEVEN: dict[str, Any] = {"structured_outputs": {"choice": ["7"]}}
COMMA, END_OF_TURN = 28, 2


MASKED: list[tuple[dict[str, Any], str]] = [
    (SEVEN | {"allowed_token_ids": [COMMA]}, "allowed_token_ids"),
    (SEVEN | {"bad_words": ["7"]}, "bad_words"),
    (SEVEN | _control(suppress=[{"text": "7"}]), "logit_control.suppress"),
    ({"allowed_token_ids": [END_OF_TURN], "min_tokens": 3}, "allowed_token_ids"),
    ({"allowed_token_ids": [COMMA], "bad_words": [","]}, "allowed_token_ids"),
    # Whose rows are the engine's own.
    (SEVEN | {"allowed_token_ids": [COMMA], "logprob_token_ids": [5], "logprobs": 1},
     "allowed_token_ids"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("runner", "fields", "param"),
    [
        *(("v1", *case) for case in MASKED),
        *(("v2", *case) for case in (MASKED[0], *MASKED[-2:])),
    ],
)
def test_masks_that_leave_no_token_end_their_own_request(
    request: pytest.FixtureRequest, runner: str, fields: dict[str, Any], param: str
) -> None:
    client: Client = request.getfixturevalue(runner)
    body = {"model": MODEL, "prompt": "One, two", "max_tokens": 4, **fields}
    status, error = client.refused("/v1/completions", body)
    assert (status, error["param"]) == (400, param), error
    assert "left no token to choose" in error["message"]


def test_a_suppressed_end_of_text_runs_to_the_cap(v1: Client) -> None:
    end = [{"token_id": token} for token in (0, 2)]
    wanted = {"bias": [{"token_id": 2, "add": 100}]}
    reasons = []
    for control in (wanted, wanted | {"suppress": end}):
        body = {**BODY, "max_tokens": 40, **_control(**control)}
        (choice,) = v1.http.post("/v1/chat/completions", json=body).json()["choices"]
        reasons.append(choice["finish_reason"])
    assert reasons == ["stop", "length"]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 400),
        (b"\x80\x04\x95pickle", 415),
        (b"\xff\xff\xff\xff\xff\xff\xff\x7f{}", 400),
    ],
)
def test_bytes_that_are_no_vector_are_refused(v1: Client, data: bytes, status: int) -> None:
    answer = v1.http.put("/v1/vectors/bad", content=data)
    assert answer.status_code == status
    assert v1.http.get("/v1/vectors/bad").status_code == 404


def test_vectors_of_the_wrong_shape_or_name_are_refused(v1: Client) -> None:
    import numpy as np

    good = safetensors.numpy.save({"direction": np.ones(576, np.float32)})
    wrong = safetensors.numpy.save({"direction": np.ones(577, np.float32)})
    assert v1.http.put("/v1/vectors/wrong", content=wrong).status_code == 400
    assert v1.http.put("/v1/vectors/UPPER", content=good).status_code == 400
    assert v1.http.put("/v1/vectors/a%2F..%2Fb", content=good).status_code in (400, 404)
