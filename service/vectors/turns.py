"""Calls that keep the workers from their steps, one at a time."""

from __future__ import annotations

import asyncio
from typing import Any


class InTurns:
    """Calls vLLM's workers one call after another.

    An engine does all calls that wait before its next step: many that each read a matrix of the
    whole vocabulary would be as many together that no token comes between.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._turn = asyncio.Lock()

    async def collective_rpc(self, method: str, timeout: None, args: tuple[Any, ...]) -> list[Any]:
        """Return the workers' answers, once earlier calls have theirs."""
        async with self._turn:
            answers: list[Any] = await self._engine.collective_rpc(method, timeout, args)
            return answers
