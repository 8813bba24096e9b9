"""The folder that keeps vectors: contents by SHA-256, names that point at them.

Every write goes to a temporary file that is then renamed, so a reader or a crash never
sees half of one.
"""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from service.errors import BadRequestError, StartupError, echo

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def check_name(name: str) -> str:
    """Return ``name``; BadRequestError if no vector can be called that."""
    if not _NAME.fullmatch(name):
        raise BadRequestError(
            f"{echo(name)} is not a vector name; allowed: 1 to 64 of a-z, 0-9, '.', '_', '-', "
            "starting with a letter or digit",
            "name",
        )
    return name


@dataclass(frozen=True)
class StoredName:
    """A name, what it points at and where that came from."""

    name: str
    sha256: str
    created: int
    """Seconds since the epoch."""
    made_from: dict[str, Any]


class VectorStore:
    """Vectors in a folder."""

    def __init__(self, folder: Path) -> None:
        self._contents = folder / "contents"
        self._names = folder / "names"
        try:
            self._contents.mkdir(parents=True, exist_ok=True)
            self._names.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise StartupError(
                f"vectors_dir {folder} cannot be written: {error.strerror}; "
                "set SENSEFIELD_VECTORS_DIR to a folder that can"
            ) from None

    def names(self) -> list[StoredName]:
        """Return all names in order."""
        return [
            StoredName(path.stem, **orjson.loads(path.read_bytes()))
            for path in sorted(self._names.glob("*.json"))
        ]

    def read(self, sha256: str) -> bytes:
        """Return a content that a stored name points at."""
        return self._content_path(sha256).read_bytes()

    def write(self, stored: StoredName, data: bytes) -> None:
        """Keep a content and point a name at it."""
        if not self._content_path(stored.sha256).exists():
            _write_whole(self._content_path(stored.sha256), data)
        fields = {
            "sha256": stored.sha256,
            "created": stored.created,
            "made_from": stored.made_from,
        }
        _write_whole(self._name_path(stored.name), orjson.dumps(fields))
        self._sweep()

    def delete(self, stored: StoredName) -> None:
        """Forget a name, and its content if no other name points at it."""
        self._name_path(stored.name).unlink(missing_ok=True)
        self._sweep()

    def _sweep(self) -> None:
        """Remove the contents that no name points at."""
        named = {stored.sha256 for stored in self.names()}
        for path in self._contents.glob("*.safetensors"):
            if path.stem not in named:
                path.unlink(missing_ok=True)

    def _content_path(self, sha256: str) -> Path:
        return self._contents / f"{sha256}.safetensors"

    def _name_path(self, name: str) -> Path:
        return self._names / f"{check_name(name)}.json"


def _write_whole(path: Path, data: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
