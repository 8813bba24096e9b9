"""The store's files, in a folder or any other filesystem that fsspec knows.

A file is written under a temporary name and then renamed, so that no reader sees a partial file,
even after a crash. In a folder one writer at a time holds a lock, which the operating system
releases when its process dies. Other filesystems have no lock: a file younger than
``grace_seconds`` may belong to a running writer.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
import time
import uuid
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import fsspec

from service.errors import RequestError, StoreFullError, StoreUnavailableError

TEMPORARY = "."
"""Prefix of the names of unfinished files."""
LOCK_SECONDS = 10.0
"""Longest wait for another writer's lock."""
_LOCK_POLL_SECONDS = 0.01
LOOK_AGAIN_SECONDS = 1.0
"""Seconds for which a file of a remote filesystem counts as unchanged."""
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")


@dataclass(frozen=True)
class Listed:
    """A listed file."""

    name: str
    size: int
    age_seconds: float
    """0 if the filesystem reports no time."""


class Files(Protocol):
    """Small files in folders, one deep. Paths are ``folder/name``.

    All methods raise StoreFullError or StoreUnavailableError when the filesystem fails.
    """

    grace_seconds: float

    def read(self, paths: Sequence[str]) -> dict[str, bytes]:
        """Return the files that exist, by path."""

    def write(self, path: str, data: bytes) -> None:
        """Write a whole file; replace an existing one."""

    def remove(self, path: str) -> None:
        """Remove a file if it is there."""

    def listing(self, folder: str) -> list[Listed]:
        """Return the files of a folder, unfinished ones too."""

    def mark(self, path: str) -> Hashable:
        """Return a value that differs once the file may have changed, with one call at most."""

    def exclusive(self) -> contextlib.AbstractContextManager[None]:
        """Exclude other writers, if the filesystem has locks."""


def open_files(location: str, folders: Sequence[str]) -> Files:
    """Return the files at a folder or fsspec URL, with its folders made.

    Raises:
        StoreUnavailableError: it cannot be written.
        ValueError, ImportError: fsspec does not know the URL, or lacks what it takes.

    """
    if "://" in location and not location.startswith(("file://", "local://")):
        return RemoteFiles(location, folders)
    return FolderFiles(Path(location.removeprefix("file://").removeprefix("local://")), folders)


class FolderFiles:
    """Files in a folder of this machine, or one that is mounted like it."""

    grace_seconds = 0.0

    def __init__(self, root: Path, folders: Sequence[str]) -> None:
        self._root = root.expanduser()
        self._prefix = f"{self._root}/"
        self._lock = self._root / ".lock"
        with _store_errors():
            for folder in folders:
                (self._root / folder).mkdir(parents=True, exist_ok=True)
            _keep_names(self._root)
            with tempfile.TemporaryFile(dir=self._root):
                pass
        with self.exclusive():
            pass

    def read(self, paths: Sequence[str]) -> dict[str, bytes]:
        """Return the files that exist, by path."""
        found = {}
        with _store_errors():
            for path in paths:
                with contextlib.suppress(FileNotFoundError):
                    found[path] = (self._root / path).read_bytes()
        return found

    def write(self, path: str, data: bytes) -> None:
        """Write a whole file, synced to the disk; replace an existing one."""
        target = self._root / path
        with _store_errors():
            handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=TEMPORARY)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, target)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
            _keep_names(target.parent)

    def remove(self, path: str) -> None:
        """Remove a file if it exists, synced to the disk."""
        target = self._root / path
        with _store_errors(), contextlib.suppress(FileNotFoundError):
            target.unlink()
            _keep_names(target.parent)

    def listing(self, folder: str) -> list[Listed]:
        """Return the files of a folder, unfinished ones too."""
        found = []
        with _store_errors(), os.scandir(self._root / folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    stat = entry.stat()
                    found.append(Listed(entry.name, stat.st_size, time.time() - stat.st_mtime))
        return found

    def mark(self, path: str) -> Hashable:
        """Return the file's identity: a rename gives it another one."""
        try:
            stat = os.stat(self._prefix + path)  # joining Paths would cost more than the call
        except OSError:
            return None
        return (stat.st_ino, stat.st_ctime_ns, stat.st_size)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the lock; StoreUnavailableError if another process keeps it too long."""
        deadline = time.monotonic() + LOCK_SECONDS
        with _store_errors():
            handle = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            while not _try_lock(handle):
                if time.monotonic() > deadline:
                    raise StoreUnavailableError(
                        f"another server has kept the vector store busy for {LOCK_SECONDS:g} s"
                    )
                time.sleep(_LOCK_POLL_SECONDS)
            yield
        finally:
            # A child process forked meanwhile has the file open too: closing is not enough.
            fcntl.flock(handle, fcntl.LOCK_UN)
            os.close(handle)


class RemoteFiles:
    """Files on a filesystem of fsspec, whose rename must be atomic."""

    grace_seconds = 600.0

    def __init__(self, url: str, folders: Sequence[str]) -> None:
        self._fs, self._root = fsspec.core.url_to_fs(url)
        with _store_errors():
            for folder in folders:
                self._fs.makedirs(f"{self._root}/{folder}", exist_ok=True)
            probe = f"{self._root}/{TEMPORARY}{uuid.uuid4().hex}"
            self._fs.pipe_file(probe, b"probe")
            self._fs.rm_file(probe)

    def read(self, paths: Sequence[str]) -> dict[str, bytes]:
        """Return the files that exist, by path; several are fetched at once."""
        whole = {self._full(path): path for path in paths}
        found: dict[str, bytes] = {}
        if not whole:
            return found
        with _store_errors():
            answers = self._fs.cat(list(whole), on_error="return")
            for full, path in whole.items():
                answer = answers.get(full)
                if isinstance(answer, bytes):
                    found[path] = answer
                elif not isinstance(answer, FileNotFoundError):
                    raise answer or OSError(f"no answer about {path}")
        return found

    def write(self, path: str, data: bytes) -> None:
        """Write a whole file; replace an existing one."""
        folder, _, name = path.rpartition("/")
        temporary = self._full(f"{folder}/{TEMPORARY}{name}.{uuid.uuid4().hex}")
        with _store_errors():
            try:
                self._fs.pipe_file(temporary, data)
                self._fs.mv(temporary, self._full(path))
            except BaseException:
                with contextlib.suppress(Exception):  # the sweep takes what stays
                    self._fs.rm_file(temporary)
                raise

    def remove(self, path: str) -> None:
        """Remove a file if it is there."""
        with _store_errors(), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._full(path))

    def listing(self, folder: str) -> list[Listed]:
        """Return the files of a folder, unfinished ones too."""
        with _store_errors():
            self._fs.invalidate_cache()
            try:
                infos = self._fs.ls(self._full(folder), detail=True)
            except FileNotFoundError:  # object stores have no empty folders
                return []
        return [
            Listed(info["name"].rpartition("/")[2], info["size"] or 0, _age_seconds(info))
            for info in infos
            if info["type"] == "file"
        ]

    def mark(self, path: str) -> Hashable:  # noqa: ARG002 - another filesystem looks at it
        """Return a clock that ticks when it is time to look again."""
        return int(time.monotonic() / LOOK_AGAIN_SECONDS)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Do nothing: these filesystems have no locks."""
        yield

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}"


def _keep_names(folder: Path) -> None:
    """Have the disk keep what a folder's files are called now: syncing a file does not."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some mounted filesystems cannot
            raise
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
    with _store_errors():
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _age_seconds(info: dict[str, Any]) -> float:
    for key in _TIMES:
        value = info.get(key)
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            value = value.timestamp()
        if isinstance(value, int | float):
            return time.time() - value
    return 0.0


@contextlib.contextmanager
def _store_errors() -> Iterator[None]:
    """Convert every exception of a filesystem to RequestError; fsspec's share no base class."""
    try:
        yield
    except RequestError:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        if getattr(error, "errno", None) in _NO_ROOM:
            raise StoreFullError(f"the vector store has no room: {reason}") from error
        raise StoreUnavailableError(f"the vector store cannot be used: {reason}") from error
