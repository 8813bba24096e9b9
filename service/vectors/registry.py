"""The vectors of a running server as a tenant sees them.

A tenant sees its own vectors, and the shared vectors whose names it does not use itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from copy import copy
from operator import itemgetter
from typing import Any, Self

from service.errors import BadRequestError
from service.schemas.vector_answers import VectorAnswer
from service.vectors.catalog import Catalog
from service.vectors.content import ModelFacts, VectorContent
from service.vectors.exchange import Format, NewVector, export, read_upload
from service.vectors.names import check_name, is_name, public_name, stored_name, tenant_of, unknown
from service.vectors.resident import Engine, ResidentContents
from service.vectors.residual_bank import ResidualBank, ResidualSupport
from service.vectors.safetensors_file import write_safetensors
from service.vectors.store import Entry, Guard, StoredName, VectorStore


def anything(_: Entry | None) -> None:
    """A guard that allows every change."""


class VectorRegistry:
    """Maps names to contents; a content stays in the workers while a request uses it."""

    def __init__(
        self,
        store: VectorStore,
        engine: Engine,
        model: ModelFacts,
        support: ResidualSupport | None = None,
    ) -> None:
        self.residual = ResidualBank(engine, support or ResidualSupport())
        self._resident = ResidentContents(engine)
        self._catalog = Catalog(store, model, self._resident)
        self._tenant: str | None = None

    def of(self, tenant: str | None) -> Self:
        """Return the registry as a tenant sees and changes it; None is the shared tenant."""
        seen = copy(self)
        seen._tenant = tenant
        return seen

    async def load(self) -> None:
        """Bring every stored vector that the model can use into the workers.

        Raises:
            StartupError: the store does not answer, or cannot be written.

        """
        await self._catalog.load()

    async def refresh(self, names: Collection[str]) -> None:
        """Look up names in the store, and bring their contents into the workers.

        Raises:
            StoreUnavailableError: the store does not answer.

        """
        meanings = (stored for name in names for stored in self._meanings(name))
        await self._catalog.refresh(list(meanings))

    def content_of(self, name: str) -> str:
        """Return the SHA-256 that a refreshed name points at.

        Raises:
            NotFoundError: there is no such vector.
            UnusableVectorError: the model cannot use it.

        """
        for stored in self._meanings(name):
            if (sha256 := self._catalog.meaning(stored)) is not None:
                return sha256
        raise unknown(name)

    def scored_content_of(self, name: str) -> str:
        """Return the SHA-256 of a vector that can steer logits.

        Raises:
            NotFoundError: there is no such vector.
            UnusableVectorError: the model cannot use it.
            BadRequestError: it can steer the residual stream only.

        """
        sha256 = self.content_of(name)
        if (reason := self._resident.unscored.get(sha256)) is not None:
            raise BadRequestError(f"the vector cannot be read in logit space: {reason}", "name")
        return sha256

    async def steers_logits(self, name: str) -> bool:
        """Say whether a usable vector can steer logits."""
        await self.refresh([name])
        return self.content_of(name) not in self._resident.unscored

    def layers_of(self, sha256: str) -> Collection[int]:
        """Return the layers of a resident content; none in unembedding space."""
        return self._resident[sha256].layers

    async def bring_residual(self, contents: Iterable[str]) -> None:
        """Load leased contents into the workers' residual bank.

        Raises:
            SaturatedError: running requests use all places of the bank.

        """
        await self.residual.bring(self._resident[sha256] for sha256 in contents)

    def lease(self, contents: set[str]) -> AbstractContextManager[None]:
        """Keep contents in the workers for as long as the context lasts."""
        return self._resident.lease(contents)

    async def describe_all(
        self, limit: int, after: str | None = None
    ) -> tuple[list[VectorAnswer], bool]:
        """Describe up to ``limit`` vectors by name, and say whether there are more.

        Args:
            limit: at least 1.
            after: only names that come after this one, which need not exist.

        """
        store = self._catalog.store
        seen = self._seen(await asyncio.to_thread(store.list_names))
        names = sorted(name for name in seen if after is None or name > after)
        entries = await asyncio.to_thread(store.find, [seen[name] for name in names[:limit]])
        found = [self._catalog.describe(entry) for entry in entries.values()]
        return sorted(found, key=itemgetter("name")), len(names) > limit

    async def describe(self, name: str) -> VectorAnswer:
        """Describe one vector; NotFoundError if there is none of that name."""
        return self._catalog.describe(await self._entry(name))

    async def read(self, name: str) -> VectorContent:
        """Return the content of a vector that the model can use.

        Raises:
            NotFoundError: there is no such vector.
            UnusableVectorError: the model cannot use it.

        """
        _, content = await self._catalog.open(await self._entry(name))
        return content

    async def file(self, name: str, form: Format) -> tuple[bytes, str]:
        """Return a vector, usable or not, as a file, and its SHA-256.

        Raises:
            NotFoundError: there is no such vector.
            BadRequestError: the format cannot hold the vector.
            UnusableVectorError: the content is damaged.

        """
        entry, content = await self._catalog.open(await self._entry(name), any_model=True)
        data = await asyncio.to_thread(export, entry, content, form, self._catalog.model)
        return data, content.sha256

    async def check(self, name: str, guard: Guard) -> None:
        """Call a guard with the store's current entry of a name."""
        guard(await self._catalog.find(stored_name(name, self._tenant)))

    async def put(
        self, name: str, data: bytes, guard: Guard = anything
    ) -> tuple[VectorAnswer, bool]:
        """Store a file under a name; returns its description and whether the name is new."""
        check_name(name)
        made = await asyncio.to_thread(read_upload, data, self._catalog.model)
        return await self.keep(name, made, guard)

    async def keep(
        self, name: str, made: NewVector, guard: Guard = anything
    ) -> tuple[VectorAnswer, bool]:
        """Store a new vector under a name.

        Returns:
            Its description, and whether the name is new.

        Raises:
            RequestError: as ``guard`` does; nothing has changed then.
            BadRequestError: the name is not valid, or the vector has no effect.
            StoreFullError: the store has no room.

        """
        content = made.content
        data = write_safetensors(content)
        stored = StoredName(
            name=stored_name(check_name(name), self._tenant),
            sha256=content.sha256,
            created=int(time.time()),
            made_from=made.made_from,
            model=made.model,
            bytes=len(data),
            summary=content.summary,
        )
        new = await self._catalog.write(stored, content, data, guard)
        return self._catalog.describe(stored), new

    async def delete(self, name: str, guard: Guard = anything) -> None:
        """Forget a name; running requests keep the content they started with."""
        await self._catalog.delete(stored_name(check_name(name), self._tenant), guard)

    async def nearest(self, name: str, vocab_size: int, k: int) -> dict[str, list[Any]]:
        """Return ids and scores of the k tokens that a vector raises and lowers most."""
        await self.refresh([name])
        nearest = await self._resident.nearest(self.scored_content_of(name), vocab_size, k)
        if nearest is None:
            raise unknown(name)
        return nearest

    async def nearest_by_layer(
        self, name: str, vocab_size: int, k: int
    ) -> dict[int, dict[str, list[Any]]]:
        """Return ids and scores of the k tokens that each of a vector's layers moves most."""
        await self.refresh([name])
        content = self.scored_content_of(name)
        return await self._resident.nearest_by_layer(content, vocab_size, k)

    async def _entry(self, name: str) -> Entry:
        return await self._catalog.first(self._meanings(name), name)

    def _meanings(self, name: str) -> Sequence[str]:
        """Return the store's possible names for a client's ``name``; the first that exists wins."""
        if not is_name(name):
            return ()
        return tuple(dict.fromkeys((stored_name(name, self._tenant), name)))

    def _seen(self, stored: Iterable[str]) -> dict[str, str]:
        """Return the store's names of the vectors that the tenant sees, by the client's name."""
        visible = [each for each in stored if tenant_of(each) in (None, self._tenant)]
        # The tenant's own vectors override shared ones.
        return {
            public_name(each): each for each in sorted(visible, key=lambda e: tenant_of(e) or "")
        }
