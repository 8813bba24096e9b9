"""The store that keeps vectors: contents by SHA-256, names that point at them.

``contents/<sha256>.safetensors`` never changes; ``names/<name>.json`` holds the content's
SHA-256, its origin and its summary. Several servers may share a store: in a folder they write
one after another, elsewhere the last writer of a name wins.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from service.errors import (
    RequestError,
    StartupError,
    StoreFullError,
)
from service.vectors.content import Summary
from service.vectors.files import TEMPORARY, Listed, open_files
from service.vectors.names import check_stored_name, is_stored_name, unknown

_NAMES, _CONTENTS = "names", "contents"
_NAME_END, _CONTENT_END = ".json", ".safetensors"


@checked_dataclass(frozen=True)
class StoredName:
    """A name, the content that it points at, and the content's origin."""

    name: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    created: int
    """Seconds since the epoch."""
    made_from: dict[str, Any]
    model: str | None
    """Name of the model it was made on, if known."""
    bytes: int
    """Size of the content's file."""
    summary: Summary


@dataclass(frozen=True)
class BrokenName:
    """A name whose file cannot be read: it can only be replaced or deleted."""

    name: str


Entry = StoredName | BrokenName
Guard = Callable[[Entry | None], None]
"""Called with a name's current entry; raises if the name may not be changed."""
_STORED = TypeAdapter(StoredName)


class VectorStore:
    """Vectors in a folder or at an fsspec URL. Blocking: not for the event loop."""

    def __init__(
        self, location: str | Path, max_names: int = 1 << 20, max_bytes: int = 1 << 60
    ) -> None:
        self._max_names = max_names
        self._max_bytes = max_bytes
        try:
            self._files = open_files(str(location), (_NAMES, _CONTENTS))
        except (RequestError, ValueError, ImportError) as error:
            raise StartupError(
                f"vectors_dir {location} cannot be written: {error}; "
                "set SENSEFIELD_VECTORS_DIR to a folder or fsspec URL that can"
            ) from None

    def list_names(self) -> list[str]:
        """Return all names in order."""
        found = (file.name for file in self._files.listing(_NAMES))
        return sorted(
            file.removesuffix(_NAME_END)
            for file in found
            if file.endswith(_NAME_END) and is_stored_name(file.removesuffix(_NAME_END))
        )

    def find(self, names: Iterable[str]) -> dict[str, Entry]:
        """Return those of the names that exist, and what they point at."""
        paths = {_name_path(name): name for name in names}
        read = self._files.read(list(paths))
        return {paths[path]: _parse(paths[path], data) for path, data in read.items()}

    def mark(self, name: str) -> Hashable:
        """Return a value that differs once the name may have changed."""
        return self._files.mark(_name_path(name))

    def read(self, sha256: str) -> bytes | None:
        """Return a content's file, None if it does not exist."""
        path = _content_path(sha256)
        return self._files.read([path]).get(path)

    def write(self, stored: StoredName, data: bytes, guard: Guard) -> bool:
        """Write a content and point a name at it; return whether the name is new.

        Raises:
            StoreFullError: too many names or bytes, or the disk is full.
            RequestError: as ``guard`` does.

        """
        content, name = _content_path(stored.sha256), _name_path(stored.name)
        with self._files.exclusive():
            before = self.find([stored.name]).get(stored.name)
            guard(before)
            crowded = self._check_room(stored, len(data), new=before is None)
            self._files.write(content, data)
            self._files.write(name, stored_bytes(stored))
            if not self._files.read([content]):
                # Without a lock, a concurrent sweep may have removed the content.
                self._files.write(content, data)
            if before is not None or crowded:
                self._sweep()
        return before is None

    def delete(self, name: str, guard: Guard) -> None:
        """Forget a name, and its content if no other name points at it.

        Raises:
            NotFoundError: there is no such name.
            RequestError: as ``guard`` does.

        """
        with self._files.exclusive():
            before = self.find([name]).get(name)
            guard(before)
            if before is None:
                raise unknown(name)
            self._files.remove(_name_path(name))
            self._sweep()

    def sweep(self) -> None:
        """Remove contents that no name points at, and unfinished files of crashed writers."""
        with self._files.exclusive():
            self._sweep()

    def _sweep(self) -> None:
        grace = self._files.grace_seconds
        # List contents first: one that gets a name between the two listings is then kept.
        contents = self._files.listing(_CONTENTS)
        for folder, listed in ((_CONTENTS, contents), (_NAMES, self._files.listing(_NAMES))):
            for file in listed:
                if file.name.startswith(TEMPORARY) and file.age_seconds >= grace:
                    self._files.remove(f"{folder}/{file.name}")
        old = [file for file in contents if _is_content(file) and file.age_seconds >= grace]
        if not old:
            return
        entries = self.find(self.list_names()).values()
        if any(isinstance(entry, BrokenName) for entry in entries):
            return  # which content it means is not known, so none is given up
        named = {entry.sha256 for entry in entries if isinstance(entry, StoredName)}
        for file in old:
            if file.name.removesuffix(_CONTENT_END) not in named:
                self._files.remove(f"{_CONTENTS}/{file.name}")

    def _check_room(self, stored: StoredName, size: int, new: bool) -> bool:
        """Return True if there is room only after a sweep of unnamed contents.

        Raises:
            StoreFullError: there is no room.

        """
        if new and len(self.list_names()) >= self._max_names:
            raise StoreFullError(
                f"the store holds {self._max_names} vectors, which is its limit: "
                "delete one, or raise max_vectors",
                "name",
            )
        sizes = {
            file.name.removesuffix(_CONTENT_END): file.size
            for file in self._files.listing(_CONTENTS)
        }
        sizes[stored.sha256] = size
        if sum(sizes.values()) <= self._max_bytes:
            return False
        kept = {stored.sha256, *self._named_by_others(stored.name, sizes)}
        if sum(sizes[sha256] for sha256 in kept if sha256 in sizes) > self._max_bytes:
            raise StoreFullError(
                f"with {size} bytes more the store would hold over {self._max_bytes} bytes, "
                "which is its limit: delete a vector, or raise vectors_bytes",
                "body",
            )
        return True

    def _named_by_others(self, name: str, contents: Iterable[str]) -> Iterable[str]:
        """Return the contents that other names point at."""
        others = self.find(other for other in self.list_names() if other != name).values()
        if any(isinstance(entry, BrokenName) for entry in others):
            return contents  # which one it means is not known: a sweep takes none
        return [entry.sha256 for entry in others if isinstance(entry, StoredName)]


def stored_bytes(stored: StoredName) -> bytes:
    """Return the file of a name."""
    return _STORED.dump_json(stored)


def _parse(name: str, data: bytes) -> Entry:
    try:
        stored = _STORED.validate_json(data)
    except ValidationError:
        return BrokenName(name)
    return stored if stored.name == name else BrokenName(name)


def _is_content(file: Listed) -> bool:
    return file.name.endswith(_CONTENT_END) and not file.name.startswith(TEMPORARY)


def _name_path(name: str) -> str:
    return f"{_NAMES}/{check_stored_name(name)}{_NAME_END}"


def _content_path(sha256: str) -> str:
    return f"{_CONTENTS}/{sha256}{_CONTENT_END}"
