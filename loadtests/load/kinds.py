"""The kinds of requests that users send, in three groups whose capacity is compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from loadtests.cases.chats import TOPICS, chat

GROUPS = ("plain", "control", "distribution")
ARROW = "application/vnd.apache.arrow.stream"
LOGITS_VECTOR, RESIDUAL_VECTOR = "loadtest-logits", "loadtest-residual"
VECTORS: Mapping[str, Mapping[str, Any]] = {
    LOGITS_VECTOR: {"text": " ocean"},
    RESIDUAL_VECTOR: {"contrast": {"positive": ["I love the sea"], "negative": ["I saw it"]}},
}
"""The sources of the vectors that the server makes before the first request."""


@dataclass(frozen=True)
class Kind:
    """A kind of request, chosen by its name, its group, or the first word of its name."""

    name: str
    group: str
    fields: Mapping[str, Any]
    arrow: bool = False

    def body(self, model: str, number: int, tokens: int) -> bytes:
        """Return the body of a user's request of that number."""
        request = chat(TOPICS[number % len(TOPICS)], tokens, **self.fields)
        return json.dumps(request.payload | {"model": model}).encode()

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags that choose it."""
        return self.name, self.group, self.name.partition("-")[0]

    @property
    def headers(self) -> dict[str, str]:
        """The headers of its requests."""
        json_type = {"content-type": "application/json"}
        return json_type | ({"accept": ARROW} if self.arrow else {})


def _control(**entries: Any) -> dict[str, Any]:
    return {"logit_control": {kind: [entry] for kind, entry in entries.items()}}


def _distribution(top_k: int | str, **fields: Any) -> dict[str, Any]:
    return {"distribution": {"top_k": top_k, **fields}}


_BIAS = {"text": " ocean", "add": 2.0}
_SUPPRESS = {"text": "once upon", "ignore_case": True}
_STEER = {"vector": LOGITS_VECTOR, "strength": 0.3}
_RESIDUAL = {"vector": RESIDUAL_VECTOR, "strength": 0.05, "at": "residual"}

KINDS = (
    Kind("plain", "plain", {}),
    Kind("biased", "control", _control(bias=_BIAS)),
    Kind("suppressed", "control", _control(suppress=_SUPPRESS)),
    Kind("steered-logits", "control", _control(steer=_STEER)),
    Kind("steered-residual", "control", _control(steer=_RESIDUAL)),
    Kind("top-20", "distribution", _distribution(20)),
    Kind("top-1000", "distribution", _distribution(1000, stages=["base", "controlled"])),
    Kind("all", "distribution", _distribution("all", dtype="float16")),
    Kind("arrow-20", "distribution", _distribution(20), arrow=True),
    Kind("arrow-1000", "distribution", _distribution(1000), arrow=True),
    Kind("arrow-all", "distribution", _distribution("all", dtype="float16"), arrow=True),
    Kind(
        "mixed",
        "distribution",
        _control(bias=_BIAS, suppress=_SUPPRESS, steer=_STEER) | _distribution(20),
    ),
)


def make_vectors(post: Callable[[Mapping[str, Any]], None]) -> None:
    """Have the vectors made, each by one request's body."""
    for name, source in VECTORS.items():
        post({"name": name, "from": source, "replace": True})
