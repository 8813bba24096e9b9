"""The requests that cases are made of."""

from __future__ import annotations

from typing import Any

from loadtests.measure.client import Client, Request
from loadtests.measure.servers import MODEL_NAME

_WORDS = """
ocean river mountain forest desert island harbour bridge castle garden
market kitchen library museum theatre orchestra violin piano guitar drum
painter sculptor poet novelist teacher doctor farmer sailor pilot engineer
winter summer autumn spring thunder rainbow glacier volcano comet planet
horse falcon dolphin salmon butterfly spider wolf turtle eagle rabbit
bread cheese honey coffee pepper orange cherry lemon copper silver
diamond marble velvet paper
"""
TOPICS = tuple(_WORDS.split())
"""64 of them, each with vectors of its own."""
_KINDS = ("", "old ", "quiet ", "distant ")
SUBJECTS = tuple(kind + topic for kind in _KINDS for topic in TOPICS)
"""256 of them: one for each request of the largest batch, and none twice."""
DISTRIBUTION = b'"distribution"'
LOGPROBS = b'"top_logprobs"'
_FIRST_ORDINARY_TOKEN = 300
"""Any vocabulary has more ids than these, and its control tokens outside of them."""


def chat(topic: str, tokens: int, marker: bytes = b"", **fields: Any) -> Request:
    """Return a chat about a topic that generates exactly so many tokens, the same each time."""
    payload = {
        "model": MODEL_NAME,
        "messages": [{"role": "user", "content": f"Tell me a story about the {topic}."}],
        "max_tokens": tokens,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return Request(payload | fields, marker)


def plain(tokens: int, count: int) -> list[Request]:
    """Return chats that ask for nothing special."""
    return [chat(subject, tokens) for subject in SUBJECTS[:count]]


def with_distribution(tokens: int, *top_k: int | str, **fields: Any) -> list[Request]:
    """Return a chat for each ``top_k`` that asks for a distribution of that width."""
    return [
        chat(topic, tokens, DISTRIBUTION, distribution={"top_k": k, **fields})
        for topic, k in zip(TOPICS, top_k, strict=False)
    ]


def with_logprobs(tokens: int, *top_k: int) -> list[Request]:
    """Return a chat for each ``top_k`` that asks for so many of OpenAI's logprobs; -1 is all."""
    return [
        chat(topic, tokens, LOGPROBS, logprobs=True, top_logprobs=k)
        for topic, k in zip(TOPICS, top_k, strict=False)
    ]


def with_control(tokens: int, count: int) -> list[Request]:
    """Return chats each with a bias, a suppression and a steering of its own."""
    return [
        chat(subject, tokens, logit_control=_control(at, subject))
        for at, subject in enumerate(SUBJECTS[:count])
    ]


def _control(at: int, subject: str) -> dict[str, Any]:
    other = TOPICS[(at + 1) % len(TOPICS)]
    token_id = _FIRST_ORDINARY_TOKEN + 2 * at
    strength = 0.5 + at // len(TOPICS) / 100  # those that share a vector differ in it
    return {
        "bias": [{"text": f" {subject}", "add": 2.0}, {"token_id": token_id, "add": -2.0}],
        "suppress": [{"text": f"the {other}"}, {"token_id": token_id + 1}],
        "steer": [{"vector": _vector_name(other), "strength": strength}],
    }


def with_residual(tokens: int, count: int, layers: list[int] | None = None) -> list[Request]:
    """Return chats each steered differently in the residual stream, at all layers or some.

    Up to 64 have a vector of their own, more of them share it at other strengths.
    """
    return [
        chat(subject, tokens, logit_control={"steer": [_residual(at, layers)]})
        for at, subject in enumerate(SUBJECTS[:count])
    ]


def _residual(at: int, layers: list[int] | None) -> dict[str, Any]:
    name = _residual_name(TOPICS[at % len(TOPICS)])
    vector = {"vector": name, "strength": 0.005 * (at + 1), "at": "residual"}
    return vector if layers is None else {**vector, "layers": layers}


async def make_vectors(client: Client, url: str) -> None:
    """Have Sensefield make the vectors that the controls name."""
    for topic in TOPICS:
        await _make(client, url, _vector_name(topic), {"text": f" {topic}"})
        # Last tokens that differ: their streams do in any model, made-up weights included.
        sides = {"positive": [f"Tell me of the {topic}"], "negative": ["Tell me of the sea"]}
        await _make(client, url, _residual_name(topic), {"contrast": sides})


async def _make(client: Client, url: str, name: str, source: dict[str, Any]) -> None:
    body = {"name": name, "from": source, "replace": True}
    async with client.session.post(f"{url}/v1/vectors", json=body) as answer:
        answer.raise_for_status()


def _vector_name(topic: str) -> str:
    return f"bench-{topic}"


def _residual_name(topic: str) -> str:
    return f"bench-residual-{topic}"
