"""Random fields that say how tokens are drawn and what is sent of them."""

from __future__ import annotations

from typing import Any

from loadtests.storm.draw import Draw
from loadtests.storm.target import Target

_SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
_GRAMMARS: tuple[dict[str, Any], ...] = (
    {"choice": ["yes", "no", "the river"]},
    {"regex": r"[a-z]{2,8}( [a-z]{2,8}){0,3}"},
    {"json": _SCHEMA},
    {"json_object": True},
    {"grammar": 'root ::= "the " ("sea" | "river") root | "."'},
)
_FORMATS: tuple[dict[str, Any], ...] = (
    {"type": "text"},
    {"type": "json_object"},
    {"type": "json_schema", "json_schema": {"name": "person", "schema": _SCHEMA}},
)
_MOST_CHOICES = 4
_SEEDS = (0, 1, 42, -7, 2**63 - _MOST_CHOICES, -(2**63))
"""Each choice has the seed after that of the one before."""


def sampling(draw: Draw, target: Target, tokens: int) -> dict[str, Any]:
    """Return how tokens are drawn: fields that chats and completions share.

    Args:
        draw: makes the choices.
        target: the server.
        tokens: the most that are generated.

    """
    vocabulary = target.vocabulary

    def ids(most: int) -> list[int]:
        return draw.several(lambda: draw.integer(0, vocabulary - 1), most)

    found = draw.fields(
        0.2,
        {
            "top_p": lambda: draw.one_of([0.001, 0.5, 0.9, 1.0]),
            "top_k": lambda: draw.one_of([-1, 0, 1, 5, vocabulary]),
            "min_p": lambda: draw.one_of([0.0, 0.05, 1.0]),
            "presence_penalty": lambda: draw.number(-2, 2),
            "frequency_penalty": lambda: draw.number(-2, 2),
            "repetition_penalty": lambda: draw.number(0.5, 2),
            "stop": lambda: draw.several(draw.text, 3),
            "stop_token_ids": lambda: ids(4),
            "include_stop_str_in_output": lambda: True,
            "ignore_eos": lambda: True,
            "min_tokens": lambda: draw.integer(0, tokens),
            "skip_special_tokens": lambda: False,
            "spaces_between_special_tokens": lambda: False,
            "logit_bias": lambda: {str(one): draw.number(-100, 100) for one in ids(5)},
            # A word of white space alone has no tokens.
            "bad_words": lambda: draw.several(lambda: draw.words(1) + draw.text(), 3),
            "truncation_side": lambda: draw.one_of(["left", "right"]),
            "cache_salt": lambda: draw.words(1),
            "stream_interval": lambda: draw.integer(1, 5),
            "return_token_ids": lambda: True,
        },
    )
    found |= draw.fields(0.4, {"seed": lambda: draw.one_of(_SEEDS)})
    found |= draw.fields(
        0.1,
        {
            "allowed_token_ids": lambda: ids(200),
            "structured_outputs": lambda: dict(draw.one_of(_GRAMMARS)),
            "repetition_detection": lambda: {"max_pattern_size": 3, "min_count": 4},
            "truncate_prompt_tokens": lambda: draw.one_of([-1, 1, 20]),
        },
    )
    if "structured_outputs" not in found:
        found |= draw.fields(0.05, {"response_format": lambda: dict(draw.one_of(_FORMATS))})
    if draw.chance(0.7):
        found["temperature"] = draw.one_of([0, 0.01, 0.7, 1, 2])
    if draw.chance(0.2):
        found |= {"n": draw.integer(2, _MOST_CHOICES), "temperature": draw.one_of([0.7, 1, 1.5])}
    return found


def streaming(draw: Draw) -> dict[str, Any]:
    """Return how an answer comes: whole, or as a stream."""
    if not draw.chance(0.5):
        return {}
    usage = {"include_usage": True, "continuous_usage_stats": draw.chance(0.5)}
    return {"stream": True, **draw.fields(0.5, {"stream_options": lambda: usage})}


def chat_logprobs(draw: Draw, target: Target) -> dict[str, Any]:
    """Return OpenAI's logprobs of a chat, in one of their forms."""
    wanted: dict[str, Any] = {"logprobs": True}
    if draw.chance(0.15):
        return {**wanted, "logprob_token_ids": draw.token_ids(target.vocabulary, 3)}
    wanted |= draw.fields(0.7, {"top_logprobs": lambda: draw.one_of([0, 1, 5, 20, 50])})
    return wanted | draw.fields(0.2, {"return_tokens_as_token_ids": lambda: True})


def text_logprobs(draw: Draw, target: Target) -> dict[str, Any]:
    """Return OpenAI's logprobs of a completion, in one of their forms."""
    if draw.chance(0.15):
        token_ids = draw.token_ids(target.vocabulary, 3)
        return {"logprobs": 1, "logprob_token_ids": token_ids}
    wanted = {"logprobs": draw.one_of([0, 1, 5, 20, 50])}
    return wanted | draw.fields(0.2, {"return_tokens_as_token_ids": lambda: True})
