"""The vectors of a running server: names, and contents resident in every worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from service.errors import (
    BadRequestError,
    NotFoundError,
    StartupError,
    StoreFullError,
    echo,
)
from service.metrics import VECTORS
from service.vectors.content import VectorContent, from_direction, parse
from service.vectors.store import StoredName, VectorStore, check_name


class Engine(Protocol):
    """The part of vLLM's engine client that vectors need."""

    def collective_rpc(
        self, method: str, timeout: None, args: tuple[Any, ...]
    ) -> Awaitable[list[Any]]:
        """Call a method on every worker."""


class VectorRegistry:
    """Names to contents; a content stays in the workers while a request runs with it."""

    def __init__(
        self, store: VectorStore, engine: Engine, hidden_size: int, max_vectors: int
    ) -> None:
        self._store = store
        self._engine = engine
        self._hidden_size = hidden_size
        self._max_vectors = max_vectors
        self._names: dict[str, StoredName] = {}
        self._contents: dict[str, VectorContent] = {}
        self._leases: dict[str, int] = {}
        self._lock = asyncio.Lock()

    async def load(self) -> None:
        """Bring every stored vector into the workers."""
        for stored in self._store.names():
            await self._make_resident(self._read(stored))
            self._names[stored.name] = stored
        self._count()

    def describe_all(self) -> list[dict[str, Any]]:
        """Describe all vectors, by name."""
        return [self.describe(name) for name in sorted(self._names)]

    def describe(self, name: str) -> dict[str, Any]:
        """Describe one vector; NotFoundError if there is none of that name."""
        stored = self._stored(name)
        return {
            "name": name,
            "object": "vector",
            "created": stored.created,
            "made_from": stored.made_from,
            **self._contents[stored.sha256].describe(),
        }

    def content_of(self, name: str) -> str:
        """Return the SHA-256 that a name points at; NotFoundError if there is none."""
        return self._stored(name).sha256

    @contextmanager
    def lease(self, contents: set[str]) -> Iterator[None]:
        """Keep contents in the workers for as long as the context lasts."""
        for sha256 in contents:
            self._leases[sha256] = self._leases.get(sha256, 0) + 1
        try:
            yield
        finally:
            for sha256 in contents:
                self._leases[sha256] -= 1
                if not self._leases[sha256]:
                    del self._leases[sha256]

    async def put(self, name: str, data: bytes) -> dict[str, Any]:
        """Store a safetensors file under a name, in the place of what it pointed at."""
        check_name(name)
        content = parse(data, self._hidden_size)
        return await self._store_content(name, content, {"upload": "safetensors"})

    async def put_text(self, name: str, text: str, token_ids: list[int]) -> dict[str, Any]:
        """Make a vector of the direction of a text's tokens in the unembedding."""
        check_name(name)
        if not token_ids:
            raise BadRequestError(f"text {echo(text)} has no tokens", "from.text")
        answers = await self._engine.collective_rpc(
            "sensefield_token_direction", None, (token_ids,)
        )
        direction = np.frombuffer(answers[0], np.float32)
        made_from = {"text": text, "token_ids": token_ids}
        return await self._store_content(name, from_direction(direction), made_from)

    async def delete(self, name: str) -> None:
        """Forget a name; running requests keep the content they started with."""
        async with self._lock:
            stored = self._names.pop(check_name(name), None)
            if stored is None:
                raise _unknown(name)
            self._store.delete(stored)
            await self._sweep()
            self._count()

    async def nearest(self, name: str, k: int) -> dict[str, list[Any]]:
        """Return ids and scores of the k tokens that a vector raises and lowers most."""
        answers = await self._engine.collective_rpc(
            "sensefield_nearest", None, (self.content_of(name), k)
        )
        if answers[0] is None:
            raise _unknown(name)
        nearest: dict[str, list[Any]] = answers[0]
        return nearest

    def _read(self, stored: StoredName) -> VectorContent:
        """Return a stored content; StartupError if it is not what its name says."""
        try:
            content = parse(self._store.read(stored.sha256), self._hidden_size)
        except (OSError, BadRequestError) as error:
            raise StartupError(
                f"the stored vector {stored.name!r} cannot be used with this model: {error}"
            ) from None
        if content.sha256 != stored.sha256:
            raise StartupError(
                f"the stored vector {stored.name!r} is damaged: its SHA-256 is {content.sha256}, "
                f"not {stored.sha256}"
            )
        return content

    async def _store_content(
        self, name: str, content: VectorContent, made_from: dict[str, Any]
    ) -> dict[str, Any]:
        async with self._lock:
            if name not in self._names and len(self._names) >= self._max_vectors:
                raise StoreFullError(
                    f"the store holds {self._max_vectors} vectors, which is its limit: "
                    "delete one, or raise max_vectors",
                    "name",
                )
            await self._make_resident(content)
            stored = StoredName(name, content.sha256, int(time.time()), made_from)
            self._store.write(stored, content.data)
            self._names[name] = stored
            await self._sweep()
            self._count()
        return self.describe(name)

    async def _make_resident(self, content: VectorContent) -> None:
        if content.sha256 in self._contents:
            return
        direction = content.read_by_unembedding.tobytes()
        try:
            await self._engine.collective_rpc(
                "sensefield_put_vector", None, (content.sha256, direction, content.residual)
            )
        except Exception as error:
            if "no direction" in str(error):
                raise BadRequestError(str(error)[:200], "body") from None
            raise
        self._contents[content.sha256] = content

    async def _sweep(self) -> None:
        """Drop from the workers what no name points at and no request runs with."""
        kept = {stored.sha256 for stored in self._names.values()} | self._leases.keys()
        for sha256 in self._contents.keys() - kept:
            del self._contents[sha256]
            await self._engine.collective_rpc("sensefield_drop_vector", None, (sha256,))

    def _stored(self, name: str) -> StoredName:
        stored = self._names.get(name)
        if stored is None:
            raise _unknown(name)
        return stored

    def _count(self) -> None:
        VECTORS.labels("stored").set(len(self._names))
        VECTORS.labels("resident").set(len(self._contents))


def _unknown(name: str) -> NotFoundError:
    return NotFoundError(f"there is no vector {echo(name)}", "vector", "vector_not_found")
