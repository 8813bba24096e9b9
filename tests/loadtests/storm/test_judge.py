"""Which answers a valid request may get."""

from __future__ import annotations

import json
from typing import Any

import pytest

from loadtests.storm.judge import Answer, WrongAnswerError, judge
from loadtests.storm.shot import COMPLETION, Shot

JSON, EVENTS = "application/json", "text/event-stream"
PLAIN = Shot(1, COMPLETION, {"prompt": "a", "max_tokens": 2})
MASKED = Shot(2, COMPLETION, {"min_tokens": 2, "logit_control": {"suppress": [{"text": "a"}]}})


def error(**fields: Any) -> dict[str, Any]:
    return {"error": {"message": "no", "type": "t", "param": None, "code": None, **fields}}


def whole(status: int, body: Any, **headers: str) -> Answer:
    return Answer(status, JSON, json.dumps(body).encode(), headers)


def streamed(*events: Any) -> Answer:
    lines = [each if isinstance(each, str) else json.dumps(each) for each in events]
    return Answer(200, EVENTS, "".join(f"data: {line}\n\n" for line in lines).encode())


def chunk(index: int, reason: str | None) -> dict[str, Any]:
    return {"choices": [{"index": index, "finish_reason": reason}]}


ENDED = {"choices": [{"index": 0, "finish_reason": "length"}]}


@pytest.mark.parametrize(
    ("shot", "answer", "outcome"),
    [
        (PLAIN, whole(200, ENDED), "answered"),
        (PLAIN, streamed(chunk(0, None), chunk(0, "length"), "[DONE]"), "streamed"),
        (PLAIN, whole(503, error(), **{"retry-after": "5"}), "refused for now"),
        (
            Shot(3, "/v1/vectors/a", allowed=frozenset({404})),
            whole(404, error()),
            "refused with 404",
        ),
        (MASKED, whole(400, error()), "refused with 400"),
        (MASKED, streamed(chunk(0, None), error()), "ended by an error"),
        (Shot(4, "/v1/messages"), streamed({"type": "message_stop"}), "streamed"),
    ],
)
def test_what_may_be(shot: Shot, answer: Answer, outcome: str) -> None:
    assert judge(shot, answer) == outcome


@pytest.mark.parametrize(
    ("shot", "answer", "signature"),
    [
        (PLAIN, whole(400, error()), "400 t None"),
        (PLAIN, whole(500, error()), "500 t None"),
        (PLAIN, whole(503, error()), "503 without Retry-After"),
        (PLAIN, whole(404, {"detail": "no"}), "an error that is no error object"),
        (PLAIN, whole(404, {"error": {"message": "", "type": ""}}), "an error object of other"),
        (PLAIN, Answer(500, "text/plain", b"Internal Server Error"), "an answer that is no JSON"),
        (MASKED, whole(500, error()), "500 t None"),
        (MASKED, streamed(error(type="InternalServerError")), "an error in a stream"),
        (PLAIN, streamed(chunk(0, "length")), "a stream that is cut"),
        (PLAIN, streamed(chunk(0, None), "[DONE]"), "a choice without an end"),
        (PLAIN, streamed(chunk(0, None), error()), "an error in a stream"),
        (PLAIN, whole(200, {"choices": []}), "choices missing or doubled"),
        (PLAIN, Answer(200, EVENTS, b""), "a stream without events"),
    ],
)
def test_what_must_not_be(shot: Shot, answer: Answer, signature: str) -> None:
    with pytest.raises(WrongAnswerError) as wrong:
        judge(shot, answer)
    assert wrong.value.signature.startswith(signature)


def test_a_row_for_every_token() -> None:
    asked = Shot(5, COMPLETION, {"prompt": "a", "max_tokens": 2, "distribution": {}})
    choice = {**ENDED["choices"][0], "token_ids": [1, 2], "distribution": {"positions": 2}}
    assert judge(asked, whole(200, {"choices": [choice]})) == "answered"
    with pytest.raises(WrongAnswerError, match="1 rows of 2 tokens"):
        judge(asked, whole(200, {"choices": [{**choice, "distribution": {"positions": 1}}]}))
    with pytest.raises(WrongAnswerError, match="without its distribution"):
        judge(asked, whole(200, ENDED))
