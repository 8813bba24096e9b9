"""The contents that are resident in the workers, and the requests that use them."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from service.vectors.content import VectorContent
from service.vectors.leases import Leases
from service.vectors.turns import SerializedRpc

HOLDER = secrets.token_hex(8)
"""The id of this API process; several may serve the same engine."""
_AT_ONCE = 64
"""Contents that the workers score between two steps of the engine."""


class Engine(Protocol):
    """The part of vLLM's engine client that vectors need."""

    def collective_rpc(
        self, method: str, timeout: None, args: tuple[Any, ...]
    ) -> Awaitable[list[Any]]:
        """Call a method on every worker."""


def first_answer(answers: Iterable[Any]) -> Any:
    """Return the first answer that is not None; None if there is none."""
    return next((answer for answer in answers if answer is not None), None)


class ResidentContents:
    """Contents by SHA-256, in every worker for as long as a name or a request needs them.

    ``unscored`` holds, for residual vectors that cannot steer logits, the reason.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reading = SerializedRpc(engine)
        self._contents: dict[str, VectorContent] = {}
        self.unscored: dict[str, str] = {}
        self._leases = Leases()

    def __contains__(self, sha256: str) -> bool:
        return sha256 in self._contents

    def __len__(self) -> int:
        return len(self._contents)

    def __getitem__(self, sha256: str) -> VectorContent:
        return self._contents[sha256]

    def get(self, sha256: str) -> VectorContent | None:
        """Return a content if it is resident."""
        return self._contents.get(sha256)

    def lease(self, contents: Iterable[str]) -> AbstractContextManager[None]:
        """Keep contents in the workers for as long as the context lasts."""
        return self._leases.hold(contents)

    async def put(self, contents: Iterable[VectorContent]) -> dict[str, str]:
        """Bring contents into the workers, all in one pass over the unembedding.

        Returns:
            By SHA-256, the reason why a content has no effect.

        """
        new = {each.sha256: each for each in contents if each.sha256 not in self._contents}
        refused: dict[str, str] = {}
        waiting = list(new.values())
        for at in range(0, len(waiting), _AT_ONCE):
            batch = waiting[at : at + _AT_ONCE]
            vectors = [
                (each.sha256, each.read_by_unembedding.tobytes(), each.residual) for each in batch
            ]
            answers = await self._engine.collective_rpc(
                "sensefield_put_vectors", None, (vectors, HOLDER)
            )
            for content, reason in zip(batch, first_answer(answers), strict=True):
                if reason is not None and not content.residual:
                    refused[content.sha256] = reason
                    continue
                if reason is not None:
                    self.unscored[content.sha256] = reason
                self._contents[content.sha256] = content
        return refused

    async def keep(self, named: Iterable[str]) -> None:
        """Drop contents that are not in ``named`` and that no request uses."""
        unnamed = self._contents.keys() - set(named)
        for sha256 in [each for each in unnamed if each not in self._leases]:
            del self._contents[sha256]
            self.unscored.pop(sha256, None)
            await self._engine.collective_rpc("sensefield_drop_vector", None, (sha256, HOLDER))

    async def nearest(self, sha256: str, vocab_size: int, k: int) -> dict[str, list[Any]] | None:
        """Return ids and scores of the k tokens that a content raises and lowers most."""
        with self.lease({sha256}):
            answers = await self._reading.collective_rpc(
                "sensefield_nearest", None, (sha256, vocab_size, k)
            )
        nearest: dict[str, list[Any]] | None = first_answer(answers)
        return nearest

    async def nearest_by_layer(
        self, sha256: str, vocab_size: int, k: int
    ) -> dict[int, dict[str, list[Any]]]:
        """Return ids and scores of the k tokens that each layer raises and lowers most."""
        layers = self._contents[sha256].layers
        if not layers:
            return {}
        data = np.stack(list(layers.values())).tobytes()
        answers = await self._reading.collective_rpc(
            "sensefield_nearest_layers", None, (data, len(layers), vocab_size, k)
        )
        return dict(zip(layers, first_answer(answers), strict=True))
