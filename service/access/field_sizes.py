"""Size limits of a request's fields, on every route."""

from __future__ import annotations

from typing import Any

from logit_processors.wire import MAX_ENTRIES, WIRE_KEY
from service.access.grammars import AS_TEXT
from service.access.json_schemas import check_schema, check_schemas
from service.access.json_values import check_values, parse, path_text
from service.errors import BadRequestError, echo

MAX_CHOICES = 1024
"""Prompts times ``n``."""
MAX_N = 128
MAX_STOPS = 64
MAX_STOP_CHARACTERS = 1024
MAX_STOP_IDS = 128
"""Limit of vLLM's V2 runner, ``MAX_NUM_STOP_TOKEN_IDS``: with min_tokens, more end the engine."""
MAX_ALLOWED_IDS = 1024
"""Limit of vLLM's V2 runner, ``MAX_NUM_ALLOWED_TOKEN_IDS``: more end the engine."""
MAX_BAD_WORDS = 128
MAX_BAD_CHARACTERS = 1 << 14
"""Characters of all bad words: vLLM tokenizes them on the event loop, and takes 1024 tokens."""
MAX_REPEATED = 256
"""Tokens of a pattern that vLLM looks for again after each token, in every length up to it."""
MAX_MODEL_CHARACTERS = 256
"""Characters of a model's name: vLLM echoes an unknown name unshortened."""
MAX_MESSAGES = 2048
MAX_TOOLS = 128
MAX_DETOKENIZED = 1 << 17
_STOPS = ("stop", "stop_sequences")
_TOKEN_CAPS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


def check_fields(body: dict[str, Any], max_tokens: int | None, trusts_templates: bool) -> None:
    """Refuse fields that are over their limits.

    Args:
        body: a request of any route. Fields of a wrong type are left to the route, except for
            numbers: vLLM also parses those from strings.
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
    """Check JSON inside a string like JSON in the body."""
    for field in AS_TEXT if isinstance(structured, dict) else ():
        text = structured.get(field)
        if isinstance(text, str):
            path = ((), "structured_outputs"), field
            value = parse(text.encode(), path_text(path))
            check_values(value, path)
            if field == "json":
                check_schema(value, path_text(path))


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
