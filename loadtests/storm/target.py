"""The server in the storm: what its requests must know of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from loadtests.measure.client import Client
from loadtests.storm.shot import CHAT

TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
PREFIX = "storm-"
"""Beginning of the names of all its vectors."""


@dataclass(frozen=True)
class Target:
    """A server, and how much a request may ask of it."""

    url: str
    models: tuple[str, ...]
    """The served model, then its LoRA adapters."""
    context: int
    """Tokens of a prompt and its answer."""
    vocabulary: int
    layers: int
    hidden_size: int
    most_tokens: int
    """Most tokens of an answer."""
    tools: bool
    """True if the server parses tool calls."""
    patience: float
    """Seconds within which clients leave, of those that do."""

    @property
    def carried(self) -> list[int]:
        """The layers that vectors of the residual stream carry."""
        return sorted({self.layers // 3, 2 * self.layers // 3})

    @classmethod
    async def of(
        cls, client: Client, url: str, most_tokens: int = 40, patience: float = 2.0
    ) -> Target:
        """Ask a server what it serves."""

        async def ask(path: str, body: dict[str, Any] | None = None) -> Any:
            method = "GET" if body is None else "POST"
            async with client.session.request(method, url + path, json=body) as answer:
                answer.raise_for_status()
                return await answer.json()

        models = (await ask("/v1/models"))["data"]
        texts = (await ask("/v1/tokens"))["data"]
        lens = await ask("/v1/lens", {"prompt": "sea"})
        made = {"name": f"{PREFIX}first", "from": {"text": " sea"}, "replace": True}
        vector = await ask("/v1/vectors", made)
        return cls(
            url=url,
            models=tuple(model["id"] for model in models),
            context=models[0]["max_model_len"],
            vocabulary=len(texts),
            layers=len(lens["layers"]),
            hidden_size=vector["hidden_size"],
            most_tokens=most_tokens,
            tools=await _calls_tools(client, url),
            patience=patience,
        )


async def _calls_tools(client: Client, url: str) -> bool:
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    body |= {"tools": [TOOL], "tool_choice": "required"}
    async with client.session.post(url + CHAT, json=body) as answer:
        return answer.ok
