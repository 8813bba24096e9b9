"""Judge answers: a valid request may get some, and no others."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from loadtests.storm.shot import ARROW, CHAT, COMPLETION, Shot

_ERROR_FIELDS = {"message", "type", "param", "code"}
_ENDS = ("message_stop", "response.completed", "response.incomplete")
"""Last events of the streams that have no [DONE]."""
_RETRY = 503


@dataclass(frozen=True)
class Answer:
    """An answer as it came."""

    status: int
    media_type: str
    content: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class WrongAnswerError(Exception):
    """An answer that a valid request must not get.

    ``signature`` is the same for all that are wrong in the same way.
    """

    def __init__(self, signature: str, shown: object = "") -> None:
        super().__init__(f"{signature}: {shown}" if shown else signature)
        self.signature = signature


def judge(shot: Shot, answer: Answer) -> str:
    """Return what became of a request, in a word.

    Raises:
        WrongAnswerError: it is not answered, and not refused as it may be.

    """
    if answer.status == _RETRY:
        _check_error(_parsed(answer.content))
        if "retry-after" not in answer.headers:
            raise WrongAnswerError("503 without Retry-After", answer.content[:500])
        return "refused for now"
    if answer.status >= 400:
        return _judge_refusal(shot, answer)
    if answer.media_type == "text/event-stream":
        return _judge_events(shot, answer.content)
    if answer.media_type == ARROW:
        return _judge_arrow(shot, answer.content)
    if answer.media_type == "application/json":
        _judge_whole(shot, _parsed(answer.content))
    return "answered"


def _judge_refusal(shot: Shot, answer: Answer) -> str:
    error = _check_error(_parsed(answer.content))
    expected = answer.status in shot.allowed or (answer.status == 400 and shot.may_end_in_error)
    if not expected:
        raise WrongAnswerError(f"{answer.status} {_kind_of(error)}", error["message"])
    return f"refused with {answer.status}"


def _kind_of(error: Mapping[str, Any]) -> str:
    """Return what two errors of the same cause have in common."""
    words = [word for word in str(error["message"]).split() if word.isalpha()]
    return f"{error['type']} {error['param']} ({' '.join(words[:8])})"


def _judge_events(shot: Shot, content: bytes) -> str:
    events = list(_events(content))
    if not events:
        raise WrongAnswerError("a stream without events", content[-300:])
    name, data = events[-1]
    if data == "[DONE]":
        _check_ends(shot, [_parsed(each.encode()) for _, each in events[:-1]])
        return "streamed"
    last = _parsed(data.encode())
    error = last.get("error") if isinstance(last, dict) else None
    if error is not None:
        _check_error(last)
        gone = 404 in shot.allowed and "not_found" in error["type"]
        if not (shot.may_end_in_error or gone) or "Internal" in error["type"]:
            raise WrongAnswerError(f"an error in a stream, {_kind_of(error)}", error["message"])
        return "ended by an error"
    if name not in _ENDS and last.get("type") not in _ENDS:
        raise WrongAnswerError("a stream that is cut", data[-300:])
    return "streamed"


def _events(content: bytes) -> Iterator[tuple[str, str]]:
    """Yield name and data of each event."""
    for block in content.decode().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "data" in lines:
            yield lines.get("event", ""), lines["data"]


def _check_ends(shot: Shot, events: list[Any]) -> None:
    """Check that each choice of a stream comes to an end."""
    if shot.path not in (CHAT, COMPLETION):
        return
    ended = {
        choice["index"]
        for event in events
        for choice in event["choices"]
        if choice["finish_reason"] is not None
    }
    if ended != set(range(_choices(shot))):
        raise WrongAnswerError("a choice without an end", f"{sorted(ended)} of {_choices(shot)}")


def _judge_whole(shot: Shot, answer: Any) -> None:
    if shot.path not in (CHAT, COMPLETION):
        return
    choices = answer["choices"]
    if [choice["index"] for choice in choices] != list(range(_choices(shot))):
        raise WrongAnswerError("choices missing or doubled", [c["index"] for c in choices])
    for choice in choices:
        if choice["finish_reason"] is None:
            raise WrongAnswerError("a choice without an end")
        rows, token_ids = choice.get("distribution"), choice.get("token_ids")
        if "distribution" in shot.fields and rows is None and shot.fields.get("max_tokens") != 0:
            raise WrongAnswerError("a choice without its distribution")
        if rows and token_ids and rows["positions"] != len(token_ids):
            counts = f"{rows['positions']} rows of {len(token_ids)} tokens"
            raise WrongAnswerError("rows missing or doubled", counts)


def _choices(shot: Shot) -> int:
    prompt: Any = shot.fields.get("prompt")
    several = isinstance(prompt, list) and not isinstance(prompt[0], int)
    count: int = (shot.fields.get("n") or 1) * (len(prompt) if several else 1)
    return count


def _judge_arrow(shot: Shot, content: bytes) -> str:
    try:
        reader = pa.ipc.open_stream(content)
        metadata = [more for _, more in reader.iter_batches_with_custom_metadata() if more]
    except pa.ArrowInvalid as error:
        # An error breaks the stream off in the middle of a message.
        if shot.may_end_in_error:
            return "ended by an error"
        raise WrongAnswerError("an Arrow stream that is cut", error) from None
    if shot.path in (CHAT, COMPLETION) and not any(b"sensefield.response" in m for m in metadata):
        raise WrongAnswerError("an Arrow stream without its answer")
    return "streamed"


def _check_error(answer: Any) -> Mapping[str, Any]:
    """Return the error of an answer that is OpenAI's object, or Anthropic's."""
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict) or not {"message", "type"} <= error.keys():
        raise WrongAnswerError("an error that is no error object", str(answer)[:300])
    if answer.get("type") != "error" and error.keys() != _ERROR_FIELDS:
        raise WrongAnswerError("an error object of other fields", sorted(error))
    return {"param": None, "code": None, **error}


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        raise WrongAnswerError("an answer that is no JSON", content[:300]) from None
