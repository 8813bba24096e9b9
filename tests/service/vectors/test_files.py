"""Files of the store, on a folder and on fsspec's memory filesystem: whole, or not there."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from service.errors import StoreFullError, StoreUnavailableError
from service.vectors import files as files_module
from service.vectors.files import Files, FolderFiles, RemoteFiles, open_files


@pytest.fixture(params=["folder", "memory", "fsspec's folder"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    if request.param == "folder":
        return open_files(str(tmp_path), ["a", "b"])
    if request.param == "memory":
        return open_files(f"memory://{uuid.uuid4()}", ["a", "b"])
    return RemoteFiles(f"file://{tmp_path}", ["a", "b"])


def names(files: Files) -> list[str]:
    return sorted(listed.name for listed in files.listing("a"))


def test_where_files_are(tmp_path: Path) -> None:
    for location in (str(tmp_path), f"file://{tmp_path}", f"local://{tmp_path}"):
        open_files(location, ["a"]).write("a/x", location.encode())
        assert (tmp_path / "a" / "x").read_bytes() == location.encode()
    assert isinstance(open_files("memory://there", ["a"]), RemoteFiles)


def test_a_folder_below_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    open_files("~/deep/down", ["a"])
    assert (tmp_path / "deep" / "down" / "a").is_dir()


def test_what_is_written_is_read_and_listed(files: Files) -> None:
    files.write("a/x", b"one")
    files.write("a/y", b"three")
    files.write("a/x", b"three more")
    assert files.read(["a/x", "a/y", "a/z", "b/x"]) == {"a/x": b"three more", "a/y": b"three"}
    assert files.read([]) == {}
    assert {listed.name: listed.size for listed in files.listing("a")} == {"x": 10, "y": 5}
    assert all(-1 <= listed.age_seconds < 60 for listed in files.listing("a"))
    assert files.listing("b") == []
    files.remove("a/x")
    files.remove("a/x")
    assert names(files) == ["y"]
    assert files.read(["a/x"]) == {}


def test_the_disk_keeps_the_name_of_what_was_written_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = FolderFiles(tmp_path, ["a"])
    folder, target = (tmp_path / "a").stat().st_ino, tmp_path / "a" / "x"
    synced: list[tuple[str, bool]] = []
    sync = os.fsync

    def noted(handle: int) -> None:
        is_folder = os.fstat(handle).st_ino == folder
        synced.append(("folder" if is_folder else "file", target.exists()))
        sync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    files.write("a/x", b"one")
    assert synced == [("file", False), ("folder", True)]
    files.remove("a/x")
    assert synced[2:] == [("folder", False)]


def test_a_filesystem_that_cannot_sync_folders_is_used_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = FolderFiles(tmp_path, ["a"])
    code = errno.EINVAL

    def fail(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    files.write("a/x", b"one")
    code = errno.EIO
    with pytest.raises(StoreUnavailableError):
        files.write("a/x", b"two")


def test_a_mark_changes_with_the_file(tmp_path: Path) -> None:
    files = FolderFiles(tmp_path, ["a"])
    marks = [files.mark("a/x")]
    for data in (b"one", b"two", b"two"):
        files.write("a/x", data)
        marks.append(files.mark("a/x"))
        assert marks[-1] == files.mark("a/x")
    files.remove("a/x")
    assert files.mark("a/x") is None
    assert len(set(marks)) == 4


def test_a_remote_mark_changes_with_time(monkeypatch: pytest.MonkeyPatch) -> None:
    files = RemoteFiles("memory://marks", ["a"])
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    before = files.mark("a/x")
    assert files.mark("a/x") == before
    now += files_module.LOOK_AGAIN_SECONDS
    assert files.mark("a/x") != before


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOSPC, StoreFullError),
        (errno.EDQUOT, StoreFullError),
        (errno.EIO, StoreUnavailableError),
        (errno.EACCES, StoreUnavailableError),
        (errno.ENOENT, StoreUnavailableError),
    ],
)
def test_a_write_that_fails_leaves_what_was_there(
    code: int, kind: type[Exception], files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write("a/x", b"old")

    def fail(*arguments: Any, **named: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", fail)
    monkeypatch.setattr(MemoryFileSystem, "cp_file", fail)
    monkeypatch.setattr(LocalFileSystem, "mv", fail)
    for path in ("a/x", "a/y"):
        with pytest.raises(kind, match="the vector store"):
            files.write(path, b"new")
    assert names(files) == ["x"]
    assert files.read(["a/x"]) == {"a/x": b"old"}


def test_a_disk_that_is_full_for_real() -> None:
    files = open_files("/dev/shm", [])  # a folder that exists and need not be made
    with pytest.raises(StoreUnavailableError):
        files.write("absent-folder/x", b"")
    assert isinstance(files, FolderFiles)
    with pytest.raises(StoreFullError, match="no room"), files_module._store_errors():
        Path("/dev/full").write_bytes(b"x" * 10_000)


def test_errors_of_other_filesystems_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class TheirsError(Exception):
        """Of no tree that we know."""

    def fail(*arguments: Any, **named: Any) -> None:
        raise TheirsError

    files = RemoteFiles("memory://errors", ["a"])
    files.write("a/x", b"one")
    calls: list[tuple[str, Callable[[], Any]]] = [
        ("cat_file", lambda: files.read(["a/x"])),
        ("ls", lambda: files.listing("a")),
        ("pipe_file", lambda: files.write("a/x", b"")),
        ("_rm", lambda: files.remove("a/x")),
    ]
    for method, call in calls:
        with monkeypatch.context() as patch:
            patch.setattr(MemoryFileSystem, method, fail)
            with pytest.raises(StoreUnavailableError, match="TheirsError"):
                call()


def test_ages_as_filesystems_tell_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_000_000_060.0)
    for told in (
        {"mtime": 1_000_000_000.0},
        {"LastModified": datetime.fromisoformat("2001-09-09T01:46:40+00:00")},
        {"updated": "2001-09-09T01:46:40+00:00"},
        {"updated": "lately", "created": 1_000_000_000},
    ):
        assert files_module._age_seconds(told) == 60.0
    assert files_module._age_seconds({"ETag": "x"}) == 0.0


CHILD = """
import sys
from datetime import datetime
from pathlib import Path
from service.vectors.files import FolderFiles
files = FolderFiles(Path(sys.argv[1]), ["a"])
"""
HOLD = """
with files.exclusive():
    print("held", flush=True)
    sys.stdin.read()
"""
COUNT = """
path = Path(sys.argv[1]) / "count"
for _ in range(200):
    with files.exclusive():
        path.write_text(str(int(path.read_text()) + 1))
"""


def child(folder: Path, code: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(CHILD + code), str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "count").write_text("0")
    children = [child(tmp_path, COUNT) for _ in range(2)]
    assert [process.wait(60) for process in children] == [0, 0]
    for process in children:
        process.communicate()
    assert (tmp_path / "count").read_text() == "400"


def test_a_lock_is_waited_for_and_ends_with_its_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "LOCK_SECONDS", 0.05)
    files = FolderFiles(tmp_path, ["a"])
    process = child(tmp_path, HOLD)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(StoreUnavailableError, match="busy"), files.exclusive():
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with files.exclusive():
        files.write("a/x", b"")
    assert names(files) == ["x"]


def test_two_threads_of_a_process_exclude_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "LOCK_SECONDS", 0.05)
    files = FolderFiles(tmp_path, ["a"])
    with files.exclusive(), pytest.raises(StoreUnavailableError), files.exclusive():
        pass


def test_a_copy_of_the_open_lock_does_not_keep_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As a process has that was forked meanwhile.
    monkeypatch.setattr(files_module, "LOCK_SECONDS", 0.05)
    files = FolderFiles(tmp_path, ["a"])
    opened: list[int] = []
    really_open = os.open

    def recorded(path: Any, *arguments: Any) -> int:
        opened.append(really_open(path, *arguments))
        return opened[-1]

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", recorded)
        with files.exclusive():
            copy = os.dup(opened[-1])
    with files.exclusive():
        os.close(copy)


def test_a_url_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nonsense"):
        open_files("nonsense://x", ["a"])
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreUnavailableError):
        open_files(str(tmp_path / "file"), ["a"])
    assert fsspec.filesystem("memory").protocol == "memory"
