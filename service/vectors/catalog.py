"""What the names in the store mean: contents, resident in the workers where the model can use them.

Other servers may change the store too. :meth:`Catalog.refresh` looks at the names that a request
uses: in a folder that is one ``stat`` each, a remote store is asked again after a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Hashable, Iterable, Sequence
from typing import Any

from service.errors import (
    BadRequestError,
    NotFoundError,
    StartupError,
    StoreFullError,
    StoreUnavailableError,
)
from service.metrics import VECTORS
from service.unbroken import unbroken
from service.vectors.content import ModelFacts, VectorContent
from service.vectors.entries import UNREADABLE, UnusableVectorError, describe, read_content
from service.vectors.names import unknown
from service.vectors.resident import ResidentContents
from service.vectors.store import BrokenName, Entry, Guard, StoredName, VectorStore

MAX_MISSING = 4096
"""Names without a meaning that are remembered as such."""
_UNSEEN = object()


class Catalog:
    """Names as the store has them, to contents."""

    def __init__(self, store: VectorStore, model: ModelFacts, resident: ResidentContents) -> None:
        self.store = store
        self.model = model
        self.resident = resident
        self._names: dict[str, str] = {}
        """SHA-256 by name, of contents that are resident."""
        self._unusable: dict[str, UnusableVectorError] = {}
        self._marks: dict[str, Hashable] = {}
        """What the store's mark was when a name's meaning was looked up."""
        self._missing: dict[str, Hashable] = {}
        """The same of names that mean nothing, the newest: clients think of any number of them."""
        self._lock = asyncio.Lock()

    async def load(self) -> None:
        """Bring every stored vector that the model can use into the workers.

        Raises:
            StartupError: the store does not answer, or cannot be written.

        """
        try:
            await asyncio.to_thread(self.store.sweep)
            await self.refresh(await asyncio.to_thread(self.store.list_names))
            await self._settle()
        except (StoreFullError, StoreUnavailableError) as error:
            raise StartupError(error.message) from None

    async def refresh(self, names: Collection[str]) -> None:
        """Learn what names mean now, and bring their contents into the workers.

        Raises:
            StoreUnavailableError: the store does not answer.

        """
        if self._stale(names):
            await unbroken(self._refresh(names))

    async def _refresh(self, names: Collection[str]) -> None:
        async with self._lock:
            if stale := self._stale(names):
                await self._learn(stale)

    def meaning(self, name: str) -> str | None:
        """Return the SHA-256 that a name, once refreshed, points at; None if there is no such.

        Raises:
            UnusableVectorError: the model cannot use it.

        """
        if (known := self._unusable.get(name)) is not None:
            raise UnusableVectorError(known.entry, known.reason)
        return self._names.get(name)

    async def find(self, name: str) -> Entry | None:
        """Return what the store has under a name now."""
        return (await asyncio.to_thread(self.store.find, [name])).get(name)

    async def first(self, names: Sequence[str], called: str) -> Entry:
        """Return what the store has under the first of some names that it knows.

        Raises:
            NotFoundError: it knows none of what a client calls ``called``.

        """
        found = await asyncio.to_thread(self.store.find, names)
        entry = next((found[each] for each in names if each in found), None)
        if entry is None:
            raise unknown(called)
        return entry

    async def open(self, entry: Entry, any_model: bool = False) -> tuple[StoredName, VectorContent]:
        """Return an entry's content, and the entry or what another server made of it meanwhile.

        Raises:
            UnusableVectorError: it is damaged, or does not fit the model.
            NotFoundError: it was deleted meanwhile.

        """
        while True:
            if isinstance(entry, BrokenName):
                raise UnusableVectorError(entry, UNREADABLE)
            misfit = entry.summary.misfit(self.model)
            if misfit and not any_model:
                raise UnusableVectorError(entry, misfit)
            if resident := self.resident.get(entry.sha256):
                return entry, resident
            data = await asyncio.to_thread(self.store.read, entry.sha256)
            if data is not None:
                return entry, await asyncio.to_thread(read_content, entry, data)
            now = await self.first([entry.name], entry.name)
            if now == entry:
                raise UnusableVectorError(entry, "its content is missing from the store")
            entry = now

    async def write(
        self, stored: StoredName, content: VectorContent, data: bytes, guard: Guard
    ) -> bool:
        """Have a name mean a content, whose file is ``data``; returns whether the name is new.

        Raises:
            RequestError: what ``guard`` raises; nothing has changed then.
            BadRequestError: a vector that steers nowhere.
            StoreFullError: no room for it.

        """
        return await unbroken(self._write(stored, content, data, guard))

    async def _write(
        self, stored: StoredName, content: VectorContent, data: bytes, guard: Guard
    ) -> bool:
        async with self._lock:
            # Asked here too, so that what is refused costs the workers nothing.
            guard(await self.find(stored.name))
            await self.resident.put(content)
            try:
                new = await asyncio.to_thread(self.store.write, stored, data, guard)
                self._forget(stored.name)
                self._names[stored.name] = content.sha256
            finally:
                await self._settle()
        return new

    async def delete(self, name: str, guard: Guard) -> None:
        """Forget a name; running requests keep the content they started with."""
        await unbroken(self._delete(name, guard))

    async def _delete(self, name: str, guard: Guard) -> None:
        async with self._lock:
            await asyncio.to_thread(self.store.delete, name, guard)
            await self._settle()

    def describe(self, entry: Entry) -> dict[str, Any]:
        """Return what the API tells of an entry."""
        known = self._unusable.get(entry.name)
        found = known.reason if known is not None and known.entry == entry else None
        return describe(entry, self.model, found)

    async def _learn(self, names: list[str]) -> None:
        """Take over what the store says of names."""
        marks = {name: self.store.mark(name) for name in names}
        entries = await asyncio.to_thread(self.store.find, names)
        before = len(self.resident)
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
            else:
                self._miss(name, marks[name])
        if len(self.resident) > before:
            await self._settle()
        else:
            await self.resident.keep(self._names.values())

    async def _bring(self, entry: Entry) -> str:
        """Bring the content of an entry into the workers and return its SHA-256."""
        if isinstance(entry, StoredName) and entry.sha256 in self.resident:
            return entry.sha256
        entry, content = await self.open(entry)
        try:
            await self.resident.put(content)
        except BadRequestError as error:
            raise UnusableVectorError(entry, error.message) from None
        return content.sha256

    async def _settle(self) -> None:
        """Forget the names that are no more, drop what nobody needs, count what is left."""
        stored = await asyncio.to_thread(self.store.list_names)
        for name in (self._names.keys() | self._unusable.keys()) - set(stored):
            self._forget(name)
        await self.resident.keep(self._names.values())
        VECTORS.labels("stored").set(len(stored))
        VECTORS.labels("resident").set(len(self.resident))

    def _stale(self, names: Iterable[str]) -> list[str]:
        """Return the names whose meaning may have changed, and those that were not looked up."""
        return [
            name
            for name in dict.fromkeys(names)
            if self._marks.get(name, self._missing.get(name, _UNSEEN)) != self.store.mark(name)
        ]

    def _miss(self, name: str, mark: Hashable) -> None:
        self._missing[name] = mark
        if len(self._missing) > MAX_MISSING:
            del self._missing[next(iter(self._missing))]

    def _forget(self, name: str) -> None:
        for known in (self._names, self._unusable, self._marks, self._missing):
            known.pop(name, None)
