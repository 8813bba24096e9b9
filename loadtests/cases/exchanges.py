"""A soak's requests beside streamed chats: Arrow, scores, the lens, grammars, vectors."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from loadtests.cases.chats import TOPICS
from loadtests.measure.client import Client, RequestError
from loadtests.measure.servers import MODEL_NAME

TOKENS = 4
HIDDEN_SIZE = 576
"""Hidden size of the embedded model."""
_CHAT, _COMPLETION = "/v1/chat/completions", "/v1/completions"
_NAMES = 20
"""Vectors and grammars that come again and again: names and compiled grammars are remembered."""
_ARROW = {"accept": "application/vnd.apache.arrow.stream"}
_END_OF_ARROW = struct.pack("<iI", -1, 0)


@dataclass(frozen=True)
class Exchange:
    """One request, and bytes that its whole answer must hold, at its end if ``ends``."""

    path: str
    body: Mapping[str, Any] | bytes
    holds: bytes
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    ends: bool = False

    async def run(self, client: Client, url: str) -> None:
        """Send it and read the answer.

        Raises:
            RequestError: it was refused, or its answer does not hold ``holds``.

        """
        as_json = not isinstance(self.body, bytes)
        content = json.dumps(self.body).encode() if as_json else self.body
        kind = "application/json" if as_json else "application/octet-stream"
        headers = {"content-type": kind, **self.headers}
        sent = client.session.request(self.method, url + self.path, data=content, headers=headers)
        async with sent as answer:
            received = await answer.read()
        held = received.endswith(self.holds) if self.ends else self.holds in received
        if not answer.ok or not held:
            shown = received[-500:].decode(errors="replace")
            raise RequestError(f"{self.method} {self.path}: HTTP {answer.status}: {shown}")


def exchanges(number: int) -> tuple[Exchange, ...]:
    """Return one of the kinds in turn: requests to be sent one after another."""
    kinds: tuple[Callable[[int], tuple[Exchange, ...]], ...] = (
        *(_arrow, _compressed_arrow, _score, _lens, _grammar, _forced, _prompt_rows),
        *(_uploaded, _contrast),
    )
    return kinds[number % len(kinds)](number // len(kinds))


def _chat(number: int, **fields: Any) -> dict[str, Any]:
    topic = TOPICS[number % len(TOPICS)]
    messages = [{"role": "user", "content": f"Tell me of the {topic}."}]
    plain = {"model": MODEL_NAME, "messages": messages, "max_tokens": TOKENS, "temperature": 0}
    return plain | {"ignore_eos": True} | fields


def _arrow(number: int) -> tuple[Exchange, ...]:
    wanted = {"top_k": 50, "stages": ["base", "controlled"]}
    body = _chat(number, distribution=wanted)
    return (Exchange(_CHAT, body, _END_OF_ARROW, headers=_ARROW, ends=True),)


def _compressed_arrow(number: int) -> tuple[Exchange, ...]:
    body = _chat(number, distribution={"top_k": "all", "compression": "lz4"})
    return (Exchange(_CHAT, body, _END_OF_ARROW, headers=_ARROW, ends=True),)


def _score(number: int) -> tuple[Exchange, ...]:
    topic = TOPICS[number % len(TOPICS)]
    body = {
        "model": MODEL_NAME,
        "prompt": f"The {topic} is",
        "continuations": [" old", " not what it was"],
        "logit_control": {"bias": [{"text": " old", "add": 2.0}]},
    }
    return (Exchange("/v1/score", body, b'"perplexity"'),)


def _lens(number: int) -> tuple[Exchange, ...]:
    topic = TOPICS[number % len(TOPICS)]
    body = {"model": MODEL_NAME, "prompt": f"The {topic} is", "max_tokens": 2, "k": 5}
    return (Exchange("/v1/lens", body, b'"kl"'),)


def _grammar(number: int) -> tuple[Exchange, ...]:
    wanted = f"number {number % _NAMES}"
    body = _chat(number, structured_outputs={"choice": [wanted]}, max_tokens=16, ignore_eos=False)
    return (Exchange(_CHAT, body, wanted.encode()),)


def _forced(number: int) -> tuple[Exchange, ...]:
    body = _chat(number, logit_control={"force": {"text": "Once upon"}})
    return (Exchange(_CHAT, body, b"Once upon"),)


def _prompt_rows(number: int) -> tuple[Exchange, ...]:
    topic = TOPICS[number % len(TOPICS)]
    body = {
        "model": MODEL_NAME,
        "prompt": f"A story about the {topic}",
        "max_tokens": 1,
        "distribution": {"top_k": 20, "prompt": True},
    }
    return (Exchange(_COMPLETION, body, b'"prompt"'),)


def _uploaded(number: int) -> tuple[Exchange, ...]:
    name = f"soak-{number % _NAMES}"
    path = f"/v1/vectors/{name}"
    steered = {"steer": [{"vector": name, "strength": 0.1}]}
    return (
        Exchange(path, _file(number), name.encode(), method="PUT"),
        Exchange(_CHAT, _chat(number, logit_control=steered), b'"length"'),
        Exchange(path, b"", b"", method="DELETE"),
    )


def _file(number: int) -> bytes:
    """Return a safetensors file of one direction."""
    size = 4 * HIDDEN_SIZE
    entry = {"dtype": "F32", "shape": [HIDDEN_SIZE], "data_offsets": [0, size]}
    header = json.dumps({"direction": entry}).encode()
    values = (float((at + number) % 7 - 3) for at in range(HIDDEN_SIZE))
    return struct.pack(f"<Q{len(header)}s{HIDDEN_SIZE}f", len(header), header, *values)


def _contrast(number: int) -> tuple[Exchange, ...]:
    topic = TOPICS[number % len(TOPICS)]
    sides = {"positive": [f"Tell me of the {topic}"], "negative": ["Tell me of the sea"]}
    body = {"name": "soak-contrast", "from": {"contrast": sides}, "replace": True, "stream": True}
    return (Exchange("/v1/vectors", body, b"data: [DONE]\n\n", ends=True),)
