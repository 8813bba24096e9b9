"""What no JSON body may hold, on any route: found before anything else looks at it.

Python's JSON takes NaN, numbers without end and half characters, and what comes after it would
fail on them where it is too late to say which field it was.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from math import isfinite
from typing import Any

import orjson
from fastapi import Request

from logit_processors.program import MAX_ENTRIES, WIRE_KEY
from service.access.grammars import AS_TEXT, FIELD, GRAMMARS, check_grammar, grammar_field
from service.access.json_schemas import check_schema, check_schemas
from service.access.large_bodies import LARGE, check_size, check_tokenized
from service.access.visit import Visit
from service.api.pieces import in_slices
from service.errors import MAX_ECHO, BadRequestError, echo
from service.json_path import json_path
from service.settings import settings

MAX_CHOICES = 1024
"""Prompts times ``n``."""
MAX_N = 128
MAX_STOPS = 64
MAX_STOP_CHARACTERS = 1024
MAX_STOP_IDS = 128
"""More, with min_tokens, end the engine on vLLM's V2 runner, as do more of the next."""
MAX_ALLOWED_IDS = 1024
MAX_BAD_WORDS = 128
MAX_BAD_CHARACTERS = 1 << 14
"""Of all bad words, which vLLM makes tokens of while nothing else runs; it takes 1024 tokens."""
MAX_REPEATED = 256
"""Tokens of a pattern that vLLM looks for again after each token, in every length up to it."""
MAX_MODEL_CHARACTERS = 256
"""Of a model's name, which vLLM repeats as it is where there is none of it."""
MAX_VALUES = 1 << 15
"""In a body, less its lists of tokens: of each that is wrong, several errors are made."""
MAX_MESSAGES = 2048
MAX_TOOLS = 128
MAX_DETOKENIZED = 1 << 17
MAX_DEPTH = 100
"""Lists and objects in one another; what comes after walks them by recursion."""
_OWN = ("logit_control", "distribution")
_INT64 = 1 << 63
_MAX_DIGITS = 21
"""A sign and as many digits as no integer of 64 bits has."""
_TOKENS = frozenset({"prompt", "tokens", "token_ids", "prompt_token_ids", "continuations"})
_STOPS = ("stop", "stop_sequences")
_TOKEN_CAPS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
Path = tuple[Any, ...]
"""Nested: a path and the part below it; () is the whole body."""


class CheckedRequest(Request):
    """A request whose JSON has been checked."""

    parsed: dict[str, Any] | None = None
    """The body, once it has been parsed."""
    also: Callable[[dict[str, Any]], None] | None = None
    """What else is to be checked of it."""

    async def json(self) -> dict[str, Any]:
        """Return the parsed body; BadRequestError names what it may not hold."""
        data = await self.body()
        await in_slices(check_size(data))
        body = parse(data)
        if len(data) > LARGE:
            await asyncio.sleep(0)
        self.parsed, visit = body, Visit.of(self.scope)
        visit.sent = frozenset(name for name, value in body.items() if value is not None)
        own = settings()
        check_values(body)
        args = getattr(self.app.state, "args", None)
        trusts = getattr(args, "trust_request_chat_template", False)
        check_fields(body, own.max_tokens, trusts)
        FIELD.set(grammar_field(body))
        if own.audit_prompts:
            asked = ("messages", "prompt", "input")
            visit.prompt = next((body[k] for k in asked if k in body), None)
        if self.also is not None:
            self.also(body)
        if len(data) > LARGE:  # what comes after it takes a while, too
            await asyncio.sleep(0)
        return body


class StockRequest(CheckedRequest):
    """A request to a route of vLLM's, which would pass over Sensefield's fields."""

    async def json(self) -> dict[str, Any]:
        """Return the parsed body; BadRequestError also for a field that would do nothing."""
        body = await super().json()
        check_tokenized(self.url.path, len(await self.body()))
        for field in _OWN:
            if body.get(field) is not None:
                raise BadRequestError(
                    f"{echo(self.url.path)} does not know it; allowed on /v1/chat/completions and "
                    "/v1/completions",
                    field,
                )
        if self.url.path == "/v1/responses":
            name_messages(body)
        return body


def name_messages(body: dict[str, Any]) -> None:
    """Give each message of a response's input its type, which OpenAI lets a client leave out."""
    items = body.get("input")
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict) and "role" in item and "content" in item:
            item.setdefault("type", "message")


def parse(data: bytes, path: str = "body") -> dict[str, Any]:
    """Return the JSON object that a body is, or that a text at a JSON path is.

    Raises:
        BadRequestError: it is none.

    """
    try:
        body = _parsed(data)
    except RecursionError:
        raise BadRequestError(f"nested deeper than {MAX_DEPTH}", path) from None
    except ValueError as error:
        raise BadRequestError(f"is no JSON: {error}", path) from None
    if not isinstance(body, dict):
        raise BadRequestError("allowed: a JSON object", path)
    return body


def _parsed(data: bytes) -> Any:
    if len(data) > LARGE:
        try:
            return orjson.loads(data)  # in half the time
        except orjson.JSONDecodeError:
            pass  # it refuses more than this does, and says less of why
    try:
        return json.loads(data)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except ValueError:
        # Python reads no integer of thousands of digits: cut short, it is still one that the
        # field which holds it cannot have.
        return json.loads(data, parse_int=lambda digits: int(digits[:_MAX_DIGITS]))


def check_values(body: Any, path: Path = ()) -> None:
    """Refuse what nothing behind can hold, wherever it stands; ``path`` is where the body does.

    Raises:
        BadRequestError: an integer beyond 64 bits, a float that is not finite, a text with a
            NUL or half a surrogate pair, a list or object too deep, a grammar too large, more
            values than a request has.

    """
    waiting: list[tuple[Any, Path, int]] = [(body, path, 0)]
    room = MAX_VALUES
    while waiting:
        value, path, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise BadRequestError(f"nested deeper than {MAX_DEPTH}", _told(path))
        if isinstance(value, list) and _are_tokens(value, path):
            continue
        if isinstance(value, dict | list):
            room -= len(value)
            if room < 0:
                raise BadRequestError(
                    f"the body has too many values; allowed: {MAX_VALUES} beside lists of tokens",
                    _told(path),
                )
        if isinstance(value, dict):
            for key, below in value.items():
                _check_text(key, path)
                if key in GRAMMARS:
                    check_grammar(key, below, _told((path, key)))
                waiting.append((below, (path, key), depth + 1))
        elif isinstance(value, list):
            waiting += ((below, (path, at), depth + 1) for at, below in enumerate(value))
        elif isinstance(value, str):
            _check_text(value, path)
        elif isinstance(value, int) and not -_INT64 <= value < _INT64:
            raise BadRequestError("allowed: integers of 64 bits", _told(path))
        elif isinstance(value, float) and not isfinite(value):
            raise BadRequestError(f"{value} is not finite", _told(path))


def _are_tokens(value: list[Any], path: Path) -> bool:
    """Say whether a list is of tokens, where one may be that is as long as a prompt."""
    while path and isinstance(path[1], int):
        path = path[0]
    if not (path and path[1] in _TOKENS):
        return False
    return set(map(type, value)) == {int} and min(value) >= 0 and max(value) < _INT64


def check_fields(body: dict[str, Any], max_tokens: int | None, trusts_templates: bool) -> None:
    """Refuse sizes that no request may have.

    Args:
        body: a request of any route; fields of a wrong type are left to the route, but for
            numbers, which vLLM also takes from texts.
        max_tokens: most tokens to generate, None for no cap.
        trusts_templates: whether a client may send its own chat template.

    Raises:
        BadRequestError: a field beyond its limit.

    """
    _check_choices(body)
    if body.get("messages") == []:
        raise BadRequestError("empty; allowed: one message and up", "messages")
    for field, most in _LENGTHS.items():
        value = body.get(field)
        if isinstance(value, list | dict) and len(value) > most:
            raise BadRequestError(f"{len(value)} entries are too many; allowed: {most}", field)
    model = body.get("model")
    if isinstance(model, str) and len(model) > MAX_MODEL_CHARACTERS:
        raise BadRequestError(f"over {MAX_MODEL_CHARACTERS} characters", "model")
    for field in _STOPS:
        stops = body.get(field)
        for at, stop in enumerate(stops if isinstance(stops, list) else [stops]):
            if isinstance(stop, str) and len(stop) > MAX_STOP_CHARACTERS:
                path = f"{field}[{at}]" if isinstance(stops, list) else field
                raise BadRequestError(f"over {MAX_STOP_CHARACTERS} characters", path)
    _check_bad_words(body.get("bad_words"))
    for field in _TOKEN_CAPS:
        _check_most(body, field, max_tokens)
    repeated = body.get("repetition_detection")
    if isinstance(repeated, dict):
        _check_most(repeated, "max_pattern_size", MAX_REPEATED, "repetition_detection.")
    _check_texts(body.get("structured_outputs"))
    check_schemas(body)
    extra = body.get("vllm_xargs")
    if isinstance(extra, dict) and WIRE_KEY in extra:
        raise BadRequestError("the name is Sensefield's own", f"vllm_xargs.{WIRE_KEY}")
    if not trusts_templates and body.get("chat_template") is not None:
        raise BadRequestError("this server takes no templates of its clients", "chat_template")


def _check_bad_words(words: Any) -> None:
    if isinstance(words, list):
        characters = sum(len(word) for word in words if isinstance(word, str))
        if characters > MAX_BAD_CHARACTERS:
            raise BadRequestError(
                f"{characters} characters are too many; allowed: {MAX_BAD_CHARACTERS} in all",
                "bad_words",
            )


_LENGTHS = {
    "stop": MAX_STOPS,
    "stop_sequences": MAX_STOPS,
    "stop_token_ids": MAX_STOP_IDS,
    "allowed_token_ids": MAX_ALLOWED_IDS,
    "bad_words": MAX_BAD_WORDS,
    "logit_bias": MAX_ENTRIES,
    "items": MAX_CHOICES,
    "messages": MAX_MESSAGES,
    "input": MAX_MESSAGES,
    "tools": MAX_TOOLS,
    "tokens": MAX_DETOKENIZED,
}


def _check_texts(structured: Any) -> None:
    """Check JSON that comes in a text as if it came as JSON."""
    for field in AS_TEXT if isinstance(structured, dict) else ():
        text = structured.get(field)
        if isinstance(text, str):
            path = ((), "structured_outputs"), field
            value = parse(text.encode(), _told(path))
            check_values(value, path)
            if field == "json":
                check_schema(value, _told(path))


def _check_choices(body: dict[str, Any]) -> None:
    _check_most(body, "n", MAX_N)
    n = body.get("n") or 1
    for field, part, plural in (("prompt", int, "prompts"), ("messages", dict, "conversations")):
        value = body.get(field)
        # A list of tokens is one prompt, and a list of messages one conversation.
        if isinstance(value, list) and value and not isinstance(value[0], part):
            choices = len(value) * n
            if choices > MAX_CHOICES:
                raise BadRequestError(
                    f"{len(value)} {plural} make {choices} choices; allowed: {MAX_CHOICES}", field
                )


def _check_most(body: dict[str, Any], field: str, most: int | None, path: str = "") -> None:
    value = body.get(field)
    if value is not None and type(value) is not int:
        raise BadRequestError(f"{echo(value)} is no integer", path + field)
    if most is not None and value is not None and value > most:
        raise BadRequestError(f"{echo(value)} is too many; allowed: up to {most}", path + field)


def _check_text(text: str, path: Path) -> None:
    if "\0" in text:
        raise BadRequestError("a NUL character is in the text", _told(path))
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise BadRequestError("half a surrogate pair is in the text", _told(path)) from None


def _told(path: Path) -> str:
    parts: list[str | int] = []
    while path:
        path, part = path
        parts.append(part)
    told = json_path(reversed(parts))
    return told if len(told) <= MAX_ECHO else told[:MAX_ECHO] + "…"
