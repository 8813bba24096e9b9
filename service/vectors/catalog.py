"""The catalog of vectors: names of the store, and their contents resident in the workers.

Other servers may change the store too. :meth:`Catalog.refresh` looks up the names that a request
uses: in a folder with one ``stat`` per name, in a remote store at most once a second. A mounted
folder may hang, so a thread of its own looks up: requests that use no vector go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from service.errors import (
    BadRequestError,
    NotFoundError,
    StartupError,
    StoreFullError,
    StoreUnavailableError,
)
from service.metrics import VECTORS
from service.schemas.vector_answers import VectorAnswer
from service.unbroken import unbroken
from service.vectors.content import ModelFacts, VectorContent
from service.vectors.entries import UNREADABLE, UnusableVectorError, describe, read_content
from service.vectors.names import unknown
from service.vectors.resident import ResidentContents
from service.vectors.store import BrokenName, Entry, Guard, StoredName, VectorStore

MAX_MISSING = 4096
"""Most missing names that are remembered."""
_UNSEEN = object()


class Catalog:
    """Maps the store's names to contents."""

    def __init__(self, store: VectorStore, model: ModelFacts, resident: ResidentContents) -> None:
        self.store = store
        self.model = model
        self.resident = resident
        self._names: dict[str, str] = {}
        """SHA-256 by name, of contents that are resident."""
        self._unusable: dict[str, UnusableVectorError] = {}
        self._marks: dict[str, Hashable] = {}
        """The store's mark of each name at its last look-up."""
        self._missing: dict[str, Hashable] = {}
        """The same for names that do not exist; only the newest are kept."""
        self._lock = asyncio.Lock()
        self._looking = ThreadPoolExecutor(1, "vector-store")

    async def load(self) -> None:
        """Bring every stored vector that the model can use into the workers.

        Raises:
            StartupError: the store does not answer, or cannot be written.

        """
        try:
            await asyncio.to_thread(self.store.sweep)
            await self.refresh(await asyncio.to_thread(self.store.list_names))
            await self._reconcile()
        except (StoreFullError, StoreUnavailableError) as error:
            raise StartupError(error.message) from None

    async def refresh(self, names: Collection[str]) -> None:
        """Look up names in the store, and bring their contents into the workers.

        Raises:
            StoreUnavailableError: the store does not answer.

        """
        if names and self._stale(await self._marks_of(names)):
            await unbroken(self._refresh(names))

    async def _refresh(self, names: Collection[str]) -> None:
        async with self._lock:
            marks = await self._marks_of(names)
            if stale := self._stale(marks):
                await self._load_names({name: marks[name] for name in stale})

    def meaning(self, name: str) -> str | None:
        """Return the SHA-256 that a refreshed name points at; None if it does not exist.

        Raises:
            UnusableVectorError: the model cannot use the vector.

        """
        if (known := self._unusable.get(name)) is not None:
            raise UnusableVectorError(known.entry, known.reason)
        return self._names.get(name)

    async def find(self, name: str) -> Entry | None:
        """Return the store's current entry of a name."""
        return (await asyncio.to_thread(self.store.find, [name])).get(name)

    async def first(self, names: Sequence[str], called: str) -> Entry:
        """Return the store's entry of the first name that exists.

        Raises:
            NotFoundError: none exists; the error names ``called``, the client's name.

        """
        found = await asyncio.to_thread(self.store.find, names)
        entry = next((found[each] for each in names if each in found), None)
        if entry is None:
            raise unknown(called)
        return entry

    async def open(self, entry: Entry, any_model: bool = False) -> tuple[StoredName, VectorContent]:
        """Return an entry's content, and the entry, which another server may have replaced.

        Raises:
            UnusableVectorError: the content is damaged, or does not fit the model.
            NotFoundError: another server has deleted the vector.

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
        """Store a content, whose file is ``data``, under a name; return whether the name is new.

        Raises:
            RequestError: as ``guard`` does; nothing has changed then.
            BadRequestError: the vector has no effect.
            StoreFullError: the store has no room.

        """
        return await unbroken(self._write(stored, content, data, guard))

    async def _write(
        self, stored: StoredName, content: VectorContent, data: bytes, guard: Guard
    ) -> bool:
        async with self._lock:
            # Checked here too, so that a refused vector costs the workers nothing.
            guard(await self.find(stored.name))
            refused = await self.resident.put([content])
            if refused:
                raise BadRequestError(refused[content.sha256], "body")
            try:
                new = await asyncio.to_thread(self.store.write, stored, data, guard)
                self._forget(stored.name)
                self._names[stored.name] = content.sha256
            finally:
                await self._reconcile()
        return new

    async def delete(self, name: str, guard: Guard) -> None:
        """Forget a name; running requests keep the content they started with."""
        await unbroken(self._delete(name, guard))

    async def _delete(self, name: str, guard: Guard) -> None:
        async with self._lock:
            await asyncio.to_thread(self.store.delete, name, guard)
            await self._reconcile()

    def describe(self, entry: Entry) -> VectorAnswer:
        """Return an entry's description for the API."""
        known = self._unusable.get(entry.name)
        found = known.reason if known is not None and known.entry == entry else None
        return describe(entry, self.model, found)

    async def _load_names(self, marks: Mapping[str, Hashable]) -> None:
        """Load the entries of names whose marks were read before."""
        entries = await asyncio.to_thread(self.store.find, marks)
        before = len(self.resident)
        found = {name: await self._found(entries.get(name)) for name in marks}
        # All in one call, which costs the workers little more than one content.
        refused = await self.resident.put(
            [meant[1] for meant in found.values() if isinstance(meant, tuple)]
        )
        for name, meant in found.items():
            self._forget(name)
            if isinstance(meant, UnusableVectorError):
                self._unusable[name] = meant
            elif meant is not None:
                entry, content = meant
                if (reason := refused.get(content.sha256)) is not None:
                    self._unusable[name] = UnusableVectorError(entry, reason)
                else:
                    self._names[name] = content.sha256
            if name in entries:
                self._marks[name] = marks[name]
            else:
                self._remember_missing(name, marks[name])
        if len(self.resident) > before:
            await self._reconcile()
        else:
            await self.resident.keep(self._names.values())

    async def _found(
        self, entry: Entry | None
    ) -> tuple[StoredName, VectorContent] | UnusableVectorError | None:
        """Return the result of :meth:`open` or its error; None if the vector was deleted."""
        if entry is None:
            return None
        try:
            return await self.open(entry)
        except UnusableVectorError as error:
            return error
        except NotFoundError:
            return None

    async def _reconcile(self) -> None:
        """Forget deleted names, drop contents without a name or request, update the metrics."""
        stored = await asyncio.to_thread(self.store.list_names)
        for name in (self._names.keys() | self._unusable.keys()) - set(stored):
            self._forget(name)
        await self.resident.keep(self._names.values())
        VECTORS.labels("stored").set(len(stored))
        VECTORS.labels("resident").set(len(self.resident))

    async def _marks_of(self, names: Collection[str]) -> dict[str, Hashable]:
        """Return the store's mark of each name."""

        def look() -> dict[str, Hashable]:
            return {name: self.store.mark(name) for name in names}

        return await asyncio.get_running_loop().run_in_executor(self._looking, look)

    def _stale(self, marks: Mapping[str, Hashable]) -> list[str]:
        """Return the names that are new or whose mark has changed."""
        return [
            name
            for name, mark in marks.items()
            if self._marks.get(name, self._missing.get(name, _UNSEEN)) != mark
        ]

    def _remember_missing(self, name: str, mark: Hashable) -> None:
        self._missing[name] = mark
        if len(self._missing) > MAX_MISSING:
            del self._missing[next(iter(self._missing))]

    def _forget(self, name: str) -> None:
        for known in (self._names, self._unusable, self._marks, self._missing):
            known.pop(name, None)
