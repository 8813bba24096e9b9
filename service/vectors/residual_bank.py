"""The vectors in the workers' bank for the residual stream, as this process counts them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.errors import SaturatedError
from service.unbroken import unbroken
from service.vectors.content import VectorContent
from service.vectors.leases import Leases
from service.vectors.resident import HOLDER, Engine


@dataclass(frozen=True)
class ResidualSupport:
    """Support for steering the model's residual stream: why not, or how many vectors at once.

    ``capacity`` is this API process's share of the workers' places.
    """

    unsupported: str | None = None
    capacity: int = 0

    @classmethod
    async def of(cls, engine: Engine, processes: int = 1) -> ResidualSupport:
        """Ask the workers, on behalf of one of ``processes`` API processes."""
        answers = await engine.collective_rpc("sensefield_describe_residual", None, ())
        reasons = [answer["unsupported"] for answer in answers if answer["unsupported"]]
        capacity = min(answer["capacity"] for answer in answers)
        return cls(reasons[0] if reasons else None, capacity // processes)


class ResidualBank:
    """Loads vectors into the bank when requests need them.

    A vector that no request leases may be replaced, the least recently used first.
    """

    def __init__(self, engine: Engine, support: ResidualSupport) -> None:
        self.support = support
        self._engine = engine
        self._present: dict[str, None] = {}  # from the least to the most recently needed
        self._leases = Leases()
        self._lock = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._present)

    def lease(self, contents: Iterable[str]) -> AbstractContextManager[None]:
        """Keep the contents that :meth:`bring` loads for as long as the context lasts."""
        return self._leases.hold(contents)

    async def bring(self, contents: Iterable[VectorContent]) -> None:
        """Load these leased contents into every worker.

        Raises:
            SaturatedError: running requests use all places of the bank.

        """
        for content in contents:
            if content.sha256 not in self._present:
                # If the client disconnects meanwhile, every place must still be counted.
                await unbroken(self._put(content))
            # The most recently needed stand last.
            del self._present[content.sha256]
            self._present[content.sha256] = None

    async def _put(self, content: VectorContent) -> None:
        async with self._lock:
            if content.sha256 not in self._present:
                await self._put_new(content)

    async def _put_new(self, content: VectorContent) -> None:
        if len(self._present) >= self.support.capacity:
            await self._make_room()
        layers = list(content.layers)
        data = np.stack([content.layers[layer] for layer in layers]).tobytes()
        answers: list[Any] = await self._engine.collective_rpc(
            "sensefield_put_residual", None, (content.sha256, data, layers, HOLDER)
        )
        if not all(answers):
            await self._drop(content.sha256)
            raise _full()
        self._present[content.sha256] = None

    async def _make_room(self) -> None:
        unneeded = next((sha256 for sha256 in self._present if sha256 not in self._leases), None)
        if unneeded is None:
            raise _full()
        del self._present[unneeded]
        await self._drop(unneeded)

    async def _drop(self, sha256: str) -> None:
        await self._engine.collective_rpc("sensefield_drop_residual", None, (sha256, HOLDER))


def _full() -> SaturatedError:
    return SaturatedError(
        "running requests steer the residual stream with as many vectors as there is room for",
        "logit_control.steer",
    )
