"""The vectors of a running server: what names mean, by the store that others may change too.

The vectors of a tenant are its own, and those of nobody where it has none of that name.
Before a request is planned, :meth:`VectorRegistry.refresh` looks at the names it uses: in a
folder that is one ``stat`` each, a remote store is asked again after a second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Hashable, Iterable, Sequence
from contextlib import AbstractContextManager
from copy import copy
from operator import itemgetter
from typing import Any, Self

from service.errors import (
    BadRequestError,
    NotFoundError,
    StartupError,
    StoreFullError,
    StoreUnavailableError,
)
from service.metrics import VECTORS
from service.vectors.content import ModelFacts, VectorContent
from service.vectors.entries import UNREADABLE, UnusableVectorError, describe, read_content
from service.vectors.exchange import Format, Made, export, read_upload
from service.vectors.names import check_name, is_name, owned, plain, tenant_of, unknown
from service.vectors.resident import Engine, ResidentContents
from service.vectors.residual_bank import ResidualBank, ResidualSupport
from service.vectors.safetensors_file import write_safetensors
from service.vectors.store import (
    BrokenName,
    Entry,
    Guard,
    StoredName,
    VectorStore,
)


def anything(_: Entry | None) -> None:
    """Let a name be changed whatever it means: a guard that guards nothing."""


class VectorRegistry:
    """Names to contents; a content stays in the workers while a request runs with it."""

    def __init__(
        self,
        store: VectorStore,
        engine: Engine,
        model: ModelFacts,
        support: ResidualSupport | None = None,
    ) -> None:
        self.residual = ResidualBank(engine, support or ResidualSupport())
        self._store = store
        self._model = model
        self._tenant: str | None = None
        self._resident = ResidentContents(engine)
        self._names: dict[str, str] = {}
        """SHA-256 by name, of contents that are resident."""
        self._unusable: dict[str, UnusableVectorError] = {}
        self._marks: dict[str, Hashable] = {}
        """What the store's mark was when a name's meaning was looked up."""
        self._lock = asyncio.Lock()

    def of(self, tenant: str | None) -> Self:
        """Return the same registry as a tenant sees and changes it; None: who shares with all."""
        seen = copy(self)
        seen._tenant = tenant
        return seen

    async def load(self) -> None:
        """Bring every stored vector that the model can use into the workers.

        Raises:
            StartupError: the store does not answer, or cannot be written.

        """
        try:
            await asyncio.to_thread(self._store.sweep)
            await self._refresh(await asyncio.to_thread(self._store.list_names))
            await self._settle()
        except (StoreFullError, StoreUnavailableError) as error:
            raise StartupError(error.message) from None

    async def refresh(self, names: Collection[str]) -> None:
        """Learn what names mean now, and bring their contents into the workers.

        Raises:
            StoreUnavailableError: the store does not answer.

        """
        await self._refresh([stored for name in names for stored in self._meanings(name)])

    async def _refresh(self, stored: Collection[str]) -> None:
        if not self._stale(stored):
            return
        async with self._lock:
            if stale := self._stale(stored):
                await self._learn(stale)

    def content_of(self, name: str) -> str:
        """Return the SHA-256 that a name, once refreshed, points at.

        Raises:
            NotFoundError: there is no such vector.
            UnusableVectorError: the model cannot use it.

        """
        for stored in self._meanings(name):
            if stored in self._unusable:
                known = self._unusable[stored]
                raise UnusableVectorError(known.entry, known.reason)
            if stored in self._names:
                return self._names[stored]
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
        """Say whether a vector that the model can use has a meaning in logit space."""
        await self.refresh([name])
        return self.content_of(name) not in self._resident.unscored

    def layers_of(self, sha256: str) -> Collection[int]:
        """Return the layers that a resident content carries, none in unembedding space."""
        return self._resident[sha256].layers

    async def bring_residual(self, contents: Iterable[str]) -> None:
        """Have the workers hold leased contents for steering the residual stream.

        Raises:
            SaturatedError: running requests need all the places there are.

        """
        await self.residual.bring(self._resident[sha256] for sha256 in contents)

    def lease(self, contents: set[str]) -> AbstractContextManager[None]:
        """Keep contents in the workers for as long as the context lasts."""
        return self._resident.lease(contents)

    async def describe_all(
        self, limit: int, after: str | None = None
    ) -> tuple[list[dict[str, Any]], bool]:
        """Describe up to ``limit`` vectors by name, and say whether there are more.

        Args:
            limit: at least 1.
            after: only names that come after this one, which need not exist.

        """
        seen = self._seen(await asyncio.to_thread(self._store.list_names))
        names = sorted(name for name in seen if after is None or name > after)
        entries = await asyncio.to_thread(self._store.find, [seen[name] for name in names[:limit]])
        found = [self._describe(entry) for entry in entries.values()]
        return sorted(found, key=itemgetter("name")), len(names) > limit

    async def describe(self, name: str) -> dict[str, Any]:
        """Describe one vector; NotFoundError if there is none of that name."""
        return self._describe(await self._entry(name))

    async def read(self, name: str) -> VectorContent:
        """Return the content of a vector that the model can use.

        Raises:
            NotFoundError: there is no such vector.
            UnusableVectorError: the model cannot use it.

        """
        _, content = await self._open(await self._entry(name))
        return content

    async def file(self, name: str, form: Format) -> tuple[bytes, str]:
        """Return a vector, usable or not, as a file, and its SHA-256.

        Raises:
            NotFoundError: there is no such vector.
            BadRequestError: it cannot be in that format.
            UnusableVectorError: it is damaged.

        """
        entry, content = await self._open(await self._entry(name), any_model=True)
        data = await asyncio.to_thread(export, entry, content, form, self._model)
        return data, content.sha256

    async def check(self, name: str, guard: Guard) -> None:
        """Ask a guard about what the store has under a name now."""
        stored = owned(name, self._tenant)
        guard((await asyncio.to_thread(self._store.find, [stored])).get(stored))

    async def put(
        self, name: str, data: bytes, guard: Guard = anything
    ) -> tuple[dict[str, Any], bool]:
        """Store a file under a name; returns its description and whether the name is new."""
        check_name(name)
        made = await asyncio.to_thread(read_upload, data, self._model)
        return await self.keep(name, made, guard)

    async def keep(
        self, name: str, made: Made, guard: Guard = anything
    ) -> tuple[dict[str, Any], bool]:
        """Store what was made under a name.

        Returns:
            Its description, and whether the name is new.

        Raises:
            RequestError: what ``guard`` raises; nothing has changed then.
            BadRequestError: not a name, or a vector that steers nowhere.
            StoreFullError: no room for it.

        """
        content = made.content
        data = write_safetensors(content)
        stored = StoredName(
            name=owned(check_name(name), self._tenant),
            sha256=content.sha256,
            created=int(time.time()),
            made_from=made.made_from,
            model=made.model,
            bytes=len(data),
            summary=content.summary,
        )
        async with self._lock:
            # Asked here too, so that what is refused costs the workers nothing.
            await self.check(name, guard)
            await self._resident.put(content)
            try:
                new = await asyncio.to_thread(self._store.write, stored, data, guard)
                self._forget(stored.name)
                self._names[stored.name] = content.sha256
            finally:
                await self._settle()
        return self._describe(stored), new

    async def delete(self, name: str, guard: Guard = anything) -> None:
        """Forget a name; running requests keep the content they started with."""
        async with self._lock:
            stored = owned(check_name(name), self._tenant)
            await asyncio.to_thread(self._store.delete, stored, guard)
            await self._settle()

    async def nearest(self, name: str, k: int) -> dict[str, list[Any]]:
        """Return ids and scores of the k tokens that a vector raises and lowers most."""
        await self.refresh([name])
        nearest = await self._resident.nearest(self.scored_content_of(name), k)
        if nearest is None:
            raise unknown(name)
        return nearest

    async def nearest_by_layer(self, name: str, k: int) -> dict[int, dict[str, list[Any]]]:
        """Return ids and scores of the k tokens that each of a vector's layers moves most."""
        await self.refresh([name])
        return await self._resident.nearest_by_layer(self.scored_content_of(name), k)

    async def _learn(self, names: list[str]) -> None:
        """Take over what the store says of names."""
        marks = {name: self._store.mark(name) for name in names}
        entries = await asyncio.to_thread(self._store.find, names)
        before = len(self._resident)
        for name in names:
            entry = entries.get(name)
            try:
                sha256 = None if entry is None else await self._bring(entry)
            except UnusableVectorError as error:
                self._forget(name)
                self._unusable[name] = error
            except NotFoundError:  # deleted meanwhile
                self._forget(name)
            else:
                self._forget(name)
                if sha256 is not None:
                    self._names[name] = sha256
            if entry is not None:
                self._marks[name] = marks[name]
        if len(self._resident) > before:
            await self._settle()
        else:
            await self._resident.keep(self._names.values())

    async def _bring(self, entry: Entry) -> str:
        """Bring the content of an entry into the workers and return its SHA-256."""
        if isinstance(entry, StoredName) and entry.sha256 in self._resident:
            return entry.sha256
        entry, content = await self._open(entry)
        try:
            await self._resident.put(content)
        except BadRequestError as error:
            raise UnusableVectorError(entry, error.message) from None
        return content.sha256

    async def _settle(self) -> None:
        """Forget the names that are no more, drop what nobody needs, count what is left."""
        stored = await asyncio.to_thread(self._store.list_names)
        for name in (self._names.keys() | self._unusable.keys()) - set(stored):
            self._forget(name)
        await self._resident.keep(self._names.values())
        VECTORS.labels("stored").set(len(stored))
        VECTORS.labels("resident").set(len(self._resident))

    async def _entry(self, name: str) -> Entry:
        return await self._first(self._meanings(name), name)

    async def _first(self, stored: Sequence[str], name: str) -> Entry:
        """Return what the store has under the first of some names that it knows."""
        found = await asyncio.to_thread(self._store.find, stored)
        entry = next((found[each] for each in stored if each in found), None)
        if entry is None:
            raise unknown(name)
        return entry

    def _meanings(self, name: str) -> Sequence[str]:
        """Return what the store may call the vector that a client calls ``name``, best first."""
        if not is_name(name):
            return ()
        return tuple(dict.fromkeys((owned(name, self._tenant), name)))

    def _seen(self, stored: Iterable[str]) -> dict[str, str]:
        """Return what the store calls the vectors that the tenant sees, by name."""
        visible = [each for each in stored if tenant_of(each) in (None, self._tenant)]
        # Its own come last, and take the place of those of nobody.
        return {plain(each): each for each in sorted(visible, key=lambda e: tenant_of(e) or "")}

    async def _open(
        self, entry: Entry, any_model: bool = False
    ) -> tuple[StoredName, VectorContent]:
        """Return an entry's content, and the entry or what another server made of it meanwhile.

        Raises:
            UnusableVectorError: it is damaged, or does not fit the model.
            NotFoundError: it was deleted meanwhile.

        """
        while True:
            if isinstance(entry, BrokenName):
                raise UnusableVectorError(entry, UNREADABLE)
            misfit = entry.summary.misfit(self._model)
            if misfit and not any_model:
                raise UnusableVectorError(entry, misfit)
            if resident := self._resident.get(entry.sha256):
                return entry, resident
            data = await asyncio.to_thread(self._store.read, entry.sha256)
            if data is not None:
                return entry, await asyncio.to_thread(read_content, entry, data)
            now = await self._first([entry.name], entry.name)
            if now == entry:
                raise UnusableVectorError(entry, "its content is missing from the store")
            entry = now

    def _stale(self, names: Iterable[str]) -> list[str]:
        """Return the names whose meaning may have changed, and those that mean nothing yet."""
        return [
            name
            for name in dict.fromkeys(names)
            if (name not in self._marks or self._marks[name] != self._store.mark(name))
        ]

    def _forget(self, name: str) -> None:
        for known in (self._names, self._unusable, self._marks):
            known.pop(name, None)

    def _describe(self, entry: Entry) -> dict[str, Any]:
        known = self._unusable.get(entry.name)
        found = known.reason if known is not None and known.entry == entry else None
        return describe(entry, self._model, found)
