"""vLLM's validation errors as ours: with the path of the client's field, without internals.

vLLM names the field in an attribute, at the end of the message, as the message's first word, or
not at all; and it uses one name where the client may have sent another.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.responses import JSONResponse
from vllm.entrypoints.serve.engine.protocol import ErrorInfo
from vllm.sampling_params import SamplingParams

from service.access.visit import Visit
from service.errors import MAX_ECHO, error_body, led_by

MAX_MESSAGE = 2 * MAX_ECHO
"""Most characters of vLLM's message: it may repeat a long list of the client's."""
MODEL_NOT_FOUND = "model_not_found"
_PARAMETER = re.compile(r" \((?:parameter=([^,)]+))?(?:, )?(?:value=.*)?\)\s*\Z", re.DOTALL)
"""The field and its value at the end of a message."""
_INTERNAL = re.compile(
    r"(?<=specified): .*\Z|\s*For further information visit \S+|\s*\[type=[^\]]*\]", re.DOTALL
)
"""Representations of vLLM's objects, and pydantic's remarks."""
_WORDS = (
    (r"^Token id -?\d+ is out of vocab", "prompt"),
    (r"at least one prompt|prompt cannot be empty|^The \w+ prompt", "prompt"),
    (r"tool choice requires|requires --tool-call-parser", "tool_choice"),
    (
        r"(?i)grammar|regex|json.?schema|structural.?tag|structured.?output|constraints",
        "structured_outputs",
    ),
    (r"continue_final_message", "continue_final_message"),
    (r"(?i)beam search", "use_beam_search"),
    (r"(?i)\blora\b", "model"),
    (r"(?i)chat template|message|conversation", "messages"),
)
"""Fields by the wording of vLLM's messages that name none."""
_ALSO = {
    "max_tokens": ("max_completion_tokens", "max_output_tokens"),
    "structured_outputs": ("response_format", "text", "output_config", "tools"),
    "input_tokens": ("prompt", "messages", "input"),
    "prompt": ("messages", "input", "tokens", "prompt_embeds"),
    "messages": ("input", "prompt"),
    "logprobs": ("top_logprobs",),
    "stop": ("stop_sequences",),
    "tool_choice": ("tools",),
}
"""vLLM's name of a field, and the names that a client may have sent instead."""


def body_of(error: ErrorInfo, sent: Collection[str]) -> dict[str, Any]:
    """Return vLLM's error as OpenAI's error object, whose code is a word, not a number.

    Args:
        error: vLLM's error.
        sent: names of the request's fields.

    """
    message, param = reworded(error.message, error.param, error.code, sent)
    return error_body(message, error.type, param, _code(error.code, param))


def reworded(
    message: str, param: str | None, status: int, sent: Collection[str]
) -> tuple[str, str | None]:
    """Return vLLM's message without internals, and the path of the client's field."""
    named = _PARAMETER.search(message)
    if named is not None:
        message, param = message[: named.start()], param or named[1]
    if param is None and status < 500:
        param = _named(message, sent)
    message = _INTERNAL.sub("", message)
    if len(message) > MAX_MESSAGE:
        message = f"{message[:MAX_MESSAGE]}…"
    return message, None if param is None else _sent(param, sent)


def answer_of(response: Response, request: Request) -> Response:
    """Return vLLM's response; an error becomes ours, an Anthropic error gets our message."""
    if response.status_code < 400 or not isinstance(response, JSONResponse):
        return response
    body = orjson.loads(bytes(response.body))
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return response
    sent = Visit.of(request.scope).sent
    message, param = reworded(error["message"], error.get("param"), response.status_code, sent)
    error["message"] = led_by(param, message)
    if "code" in error:
        word = error["code"] if isinstance(error["code"], str) else None
        error |= {"param": param, "code": word or _code(response.status_code, param)}
    kept = {
        k: v for k, v in response.headers.items() if k not in ("content-length", "content-type")
    }
    return JSONResponse(body, response.status_code, kept)


def _named(message: str, sent: Collection[str]) -> str | None:
    """Return the field that a message is about."""
    first = message.partition(" ")[0].strip("`'\"")
    if first in sent or first in SamplingParams.__struct_fields__:
        return first
    quoted: list[str] = re.findall(r"[`'\"](\w+)[`'\"]", message)
    if (name := next((each for each in quoted if each in sent), None)) is not None:
        return name
    return next((field for words, field in _WORDS if re.search(words, message)), None)


def _sent(param: str, sent: Collection[str]) -> str:
    """Return the path of the client's field for the field that vLLM names."""
    path = re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", param.removeprefix("body."))
    head = re.split(r"[.\[]", path, maxsplit=1)[0]
    if head in sent:
        return path
    return next((name for name in _ALSO.get(head, ()) if name in sent), path)


def _code(status: int, param: str | None) -> str | None:
    return MODEL_NOT_FOUND if status == 404 and param == "model" else None
