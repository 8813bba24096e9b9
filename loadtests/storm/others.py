"""Requests to the routes beside chats, completions and vectors."""

from __future__ import annotations

from typing import Any

from loadtests.storm.control import control
from loadtests.storm.draw import Draw
from loadtests.storm.shot import ARROW, CHAT, LENS, SCORE, Shot
from loadtests.storm.target import Target


def score(draw: Draw, target: Target, number: int) -> Shot:
    """Return continuations to score, as texts or tokens, with control or none."""

    def continuation() -> Any:
        if draw.chance(0.5):
            return f" {draw.words(draw.integer(1, 5))}"
        return draw.token_ids(target.vocabulary, draw.integer(1, 5))

    body = {**_prompt(draw, target), "continuations": draw.several(continuation, 4)}
    return _sight(draw, target, number, SCORE, body)


def lens(draw: Draw, target: Target, number: int) -> Shot:
    """Return layers and positions to read."""
    body = _prompt(draw, target) | draw.fields(
        0.5,
        {
            "max_tokens": lambda: draw.integer(0, min(6, target.most_tokens)),
            "layers": lambda: sorted({0, draw.integer(0, target.layers - 1)}),
            "positions": lambda: [0, -1],
            "k": lambda: draw.one_of([1, 5, 50]),
            "encoding": lambda: draw.one_of(["json", "base64"]),
        },
    )
    return _sight(draw, target, number, LENS, body)


def _sight(draw: Draw, target: Target, number: int, path: str, body: dict[str, Any]) -> Shot:
    if draw.chance(0.5):
        body["logit_control"] = control(draw, target, force=path == LENS)
    headers = {"accept": ARROW} if draw.chance(0.3) else {}
    return Shot(number, path, body, headers=headers)


def _prompt(draw: Draw, target: Target) -> dict[str, Any]:
    if draw.chance(0.3):
        return {"messages": [{"role": "user", "content": draw.words(draw.integer(1, 20))}]}
    if draw.chance(0.3):
        return {"prompt": draw.token_ids(target.vocabulary, draw.integer(1, 40))}
    return {"prompt": draw.words(draw.integer(1, 60))}


def response(draw: Draw, target: Target, number: int) -> Shot:
    """Return a request in the dialect of OpenAI's responses."""
    body: dict[str, Any] = {"model": target.models[0], "input": draw.words(draw.integer(1, 30))}
    body |= {"max_output_tokens": draw.integer(1, target.most_tokens)}
    body |= draw.fields(0.5, {"stream": lambda: True, "temperature": lambda: 1.0})
    return Shot(number, "/v1/responses", body)


def message(draw: Draw, target: Target, number: int) -> Shot:
    """Return a request in Anthropic's dialect."""
    body: dict[str, Any] = {
        "model": target.models[0],
        "max_tokens": draw.integer(1, target.most_tokens),
    }
    body |= {"messages": [{"role": "user", "content": draw.words(draw.integer(1, 30))}]}
    body |= draw.fields(0.5, {"stream": lambda: True, "temperature": lambda: 1.0})
    return Shot(number, "/v1/messages", body)


def batch(draw: Draw, target: Target, number: int) -> Shot:
    """Return several chats in one request."""
    chat = [{"role": "user", "content": draw.words(5)}]
    body: dict[str, Any] = {"model": target.models[0], "messages": [chat] * draw.integer(1, 3)}
    body |= {"max_tokens": draw.integer(1, target.most_tokens), "temperature": 0}
    return Shot(number, f"{CHAT}/batch", body)


def small(draw: Draw, target: Target, number: int) -> Shot:
    """Return a request that generates nothing."""
    kind = draw.one_of(["tokenize", "detokenize", "nearest", "models"])
    if kind == "tokenize":
        return Shot(number, "/tokenize", {"model": target.models[0], "prompt": draw.words(9)})
    if kind == "detokenize":
        tokens = draw.token_ids(target.vocabulary, 5)
        return Shot(number, "/detokenize", {"model": target.models[0], "tokens": tokens})
    if kind == "nearest":
        token = draw.integer(0, target.vocabulary - 1)
        return Shot(number, f"/v1/tokens/nearest?token_id={token}&k=3", None, "GET")
    return Shot(number, "/v1/models", None, "GET")
