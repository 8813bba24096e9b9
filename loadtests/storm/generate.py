"""The request that a number stands for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from loadtests.storm import others
from loadtests.storm.control import control, distribution, is_wide
from loadtests.storm.draw import Draw
from loadtests.storm.sampling import chat_logprobs, sampling, streaming, text_logprobs
from loadtests.storm.shot import ARROW, CHAT, COMPLETION, LENS, SCORE, Shot
from loadtests.storm.target import TOOL, Target
from loadtests.storm.vectors import DELETED, vector_shot

_TEMPLATE = 60
"""Tokens that a chat template may add."""
_TOKENS_A_WORD = 2
_WIDE_TOKENS = 4
"""Tokens of an answer whose rows are the whole vocabulary: a row has up to 7 MB of JSON."""
_LEAVES = 0.12
_CHOICES: tuple[Any, ...] = (
    *("none", "required"),
    {"type": "function", "function": {"name": "look_up"}},
)

_KINDS: dict[Callable[[Draw, Target, int], Shot], float] = {}


def shot(seed: int, number: int, target: Target) -> Shot:
    """Return request ``number`` of the storm that ``seed`` names."""
    draw = Draw(seed, number)
    found = draw.weighted(_KINDS)(draw, target, number)
    control_of = found.fields.get("logit_control") or {}
    if any(entry["vector"] in DELETED for entry in control_of.get("steer", ())):
        found = replace(found, allowed=found.allowed | {404})
    generates = found.path in (CHAT, COMPLETION, SCORE, LENS)
    if generates and draw.chance(_LEAVES):
        found = replace(found, patience=draw.number(0, target.patience))
    return found


def _room(draw: Draw, target: Target, tokens: int) -> int:
    """Return how many tokens a prompt has: few, or so many that it comes in chunks."""
    room = target.context - tokens - _TEMPLATE
    return draw.integer(1, room if draw.chance(0.2) else min(room, 40))


def _words(draw: Draw, room: int) -> str:
    return draw.words(max(1, room // _TOKENS_A_WORD)) + draw.one_of(["", " ", "\n", " 🌊", " ß"])


def _prompt(draw: Draw, target: Target, room: int) -> Any:
    """Return a text or tokens, or a list of either."""
    as_tokens = draw.chance(0.3)

    def one() -> Any:
        return draw.token_ids(target.vocabulary, room) if as_tokens else _words(draw, room)

    return [one() for _ in range(draw.integer(1, 3))] if draw.chance(0.15) else one()


def _messages(draw: Draw, room: int) -> list[dict[str, Any]]:
    turns = [{"role": "user", "content": _words(draw, room)}]
    if draw.chance(0.2):
        turns.insert(0, {"role": "system", "content": draw.words(3)})
    if draw.chance(0.2):
        turns += [{"role": "assistant", "content": "Yes."}, {"role": "user", "content": "Go on"}]
    return turns


def _shared(draw: Draw, target: Target, tokens: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Return fields of chats and completions, and the headers that go with them."""
    body = {"model": draw.one_of(target.models), **sampling(draw, target, tokens)}
    headers = {}
    if draw.chance(0.5):
        body["logit_control"] = control(draw, target)
    if draw.chance(0.4):
        arrow = draw.chance(0.4)
        headers = {"accept": ARROW} if arrow else {}
        body["distribution"] = distribution(draw, target, arrow=arrow)
    return body, headers


def _fit(body: dict[str, Any], tokens: int) -> int:
    """Make a body keep to what it may ask for at once; return how many tokens it has."""
    wanted = body.get("distribution")
    if wanted is None or not is_wide(wanted):
        return tokens
    tokens = min(tokens, _WIDE_TOKENS)
    body["min_tokens"] = min(body.get("min_tokens", 0), tokens)
    return tokens


def _finish(draw: Draw, body: dict[str, Any], logprobs: dict[str, Any]) -> None:
    """Add the fields that go with some of the others only."""
    if draw.chance(0.3):
        body |= logprobs
    if draw.chance(0.1) and not body.get("stream"):
        body["prompt_logprobs"] = draw.one_of([0, 1, 5])
    if "logprob_token_ids" in body:
        # Its rows are vLLM's own: they carry neither distributions nor what control came to.
        body.pop("distribution", None)
        body.pop("logit_control", None)


def _begun(
    draw: Draw, target: Target, logprobs: Callable[[Draw, Target], dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, str], int]:
    """Return the fields that both routes have, the headers and the most tokens."""
    tokens = draw.few(target.most_tokens)
    body, headers = _shared(draw, target, tokens)
    body |= streaming(draw)
    tokens = _fit(body, tokens)
    _finish(draw, body, logprobs(draw, target))
    return body, headers, tokens


def _chat(draw: Draw, target: Target, number: int) -> Shot:
    body, headers, tokens = _begun(draw, target, chat_logprobs)
    body["messages"] = _messages(draw, _room(draw, target, tokens) - 10)
    body[draw.one_of(["max_tokens", "max_completion_tokens"])] = tokens
    formed = body.keys() & {"structured_outputs", "response_format"}
    if target.tools and draw.chance(0.1) and not formed:
        body |= {"tools": [TOOL], "tool_choice": draw.one_of(_CHOICES)}
    if draw.chance(0.05):
        body |= {"add_generation_prompt": False, "continue_final_message": True}
        body["messages"].append({"role": "assistant", "content": "The"})
    return _generating(number, CHAT, body, headers)


def _completion(draw: Draw, target: Target, number: int) -> Shot:
    body, headers, tokens = _begun(draw, target, text_logprobs)
    body["prompt"] = _prompt(draw, target, _room(draw, target, tokens))
    body["max_tokens"] = tokens
    if draw.chance(0.15):
        body["echo"] = True
        if draw.chance(0.2) and not body.keys() & {"logprob_token_ids", "min_tokens"}:
            body["max_tokens"] = 0
    return _generating(number, COMPLETION, body, headers)


def _generating(number: int, path: str, body: dict[str, Any], headers: dict[str, str]) -> Shot:
    if "distribution" not in body:
        headers = {}
    if headers and body.get("stream"):
        body.pop("stream_options", None)
    return Shot(number, path, body, headers=headers)


def _beams(draw: Draw, target: Target, number: int) -> Shot:
    chat, width = draw.chance(0.5), draw.integer(1, 4)
    body: dict[str, Any] = {"model": target.models[0], "use_beam_search": True, "n": width}
    body |= {"max_tokens": draw.integer(1, min(8, target.most_tokens)), "temperature": 0}
    body |= draw.fields(0.3, {"length_penalty": lambda: 0.8, "ignore_eos": lambda: True})
    text = draw.words(draw.integer(1, 20))
    if chat:
        body |= {"messages": [{"role": "user", "content": text}]}
        body |= draw.fields(0.3, {"logprobs": lambda: True})
    else:
        body |= {"prompt": text, **draw.fields(0.3, {"logprobs": lambda: 2})}
    return Shot(number, CHAT if chat else COMPLETION, body)


_KINDS |= {
    _chat: 30,
    _completion: 34,
    _beams: 3,
    vector_shot: 14,
    others.score: 5,
    others.lens: 4,
    others.response: 2,
    others.message: 2,
    others.batch: 1,
    others.small: 3,
}
