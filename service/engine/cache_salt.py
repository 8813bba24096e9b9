"""Separate prefix cache entries for requests that steer the residual stream.

vLLM shares a block of KV cache between requests whose tokens and ``cache_salt`` are equal.
Steering changes the block but not the tokens, so a steered request's salt is a hash of its
steering and the client's own salt. The hash is keyed with a secret of the engine, so that no
client can guess the salt of another's steered blocks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from logit_processors.control import EVERYWHERE
from logit_processors.controls.steer import SteerEntry
from logit_processors.residual import StreamRequest
from service.engine.engine import Generate, Outputs

LayersOf = Callable[[str], Collection[int]]
"""Returns the layers of a vector, by the SHA-256 of its content."""


def fingerprint(steer: Sequence[SteerEntry], layers_of: LayersOf, prompt_len: int) -> str | None:
    """Return a canonical text of the steering, equal for equal steering; None without effect.

    Args:
        steer: the entries, in any order.
        layers_of: returns the layers of each vector.
        prompt_len: tokens of the prompt. A window is counted from its end, so under one the
            same token at the same place is steered differently in prompts of different lengths.

    """
    sums: dict[tuple[str, int, int], dict[int, float]] = {}
    for entry in steer:
        by_layer = sums.setdefault((entry.vector, *entry.bounds), {})
        for layer in layers_of(entry.vector) if entry.layers is None else entry.layers:
            by_layer[layer] = by_layer.get(layer, 0.0) + entry.strength
    described = []
    for (vector, *bounds), by_layer in sorted(sums.items()):
        # The worker sums in float32: strengths that cancel there have no effect.
        left = sorted((at, float(np.float32(s))) for at, s in by_layer.items() if np.float32(s))
        if left:
            windowed = tuple(bounds) != EVERYWHERE.bounds
            described.append([vector, *bounds, left, prompt_len if windowed else None])
    return json.dumps(described) if described else None


def salt_of(key: bytes, *parts: str | None) -> str:
    """Return a salt made of the parts, which cannot be computed without the key."""
    return hashlib.blake2b(json.dumps(parts).encode(), key=key, digest_size=32).hexdigest()


async def secret_of(engine: Any) -> bytes:
    """Return the engine's secret, from its first worker."""
    keys: list[bytes] = await engine.collective_rpc("sensefield_cache_key", None, ())
    return keys[0]


class SteeringSalt:
    """A step that salts the requests that steer the residual stream.

    Args:
        layers_of: returns the layers of each vector.
        key: the engine's secret, 16 to 64 bytes.

    """

    def __init__(self, layers_of: LayersOf, key: bytes) -> None:
        self._layers_of = layers_of
        self._key = key

    def __call__(
        self, generate: Generate, prompt: Any, params: Any, *args: Any, **kwargs: Any
    ) -> Outputs:
        """Generate with a cache salt that includes the steering."""
        steer = StreamRequest.of(params).steer
        if steer:
            prompt = self._salted(prompt, steer)
        return generate(prompt, params, *args, **kwargs)

    def _salted(self, prompt: Mapping[str, Any], steer: Sequence[SteerEntry]) -> dict[str, Any]:
        tokens = prompt.get("prompt_token_ids")
        size = len(prompt["prompt_embeds"] if tokens is None else tokens)
        steering = fingerprint(steer, self._layers_of, size)
        if steering is None:
            return dict(prompt)
        salt = salt_of(self._key, prompt.get("cache_salt"), steering)
        return {**prompt, "cache_salt": salt}
