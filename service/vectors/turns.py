"""Serialized calls of the workers, for calls that delay the engine's steps."""

from __future__ import annotations

import asyncio
from typing import Any


class SerializedRpc:
    """Calls vLLM's workers one call after another.

    The engine runs all waiting calls before its next step. Many calls that each read a matrix of
    the whole vocabulary would stop generation for as long as all of them take.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._turn = asyncio.Lock()

    async def collective_rpc(self, method: str, timeout: None, args: tuple[Any, ...]) -> list[Any]:
        """Return the workers' answers; wait for earlier calls first."""
        async with self._turn:
            answers: list[Any] = await self._engine.collective_rpc(method, timeout, args)
            return answers
