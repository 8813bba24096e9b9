"""The store: whole files only, one content for all of its names, shared by several servers."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from service.errors import (
    BadRequestError,
    ConflictError,
    NotFoundError,
    StartupError,
    StoreFullError,
)
from service.vectors.content import VectorContent
from service.vectors.files import RemoteFiles
from service.vectors.names import check_name
from service.vectors.store import BrokenName, Entry, StoredName, VectorStore

ONE, TWO = "1" * 64, "2" * 64
SUMMARY = VectorContent({"layer.3": np.array([3, 4], np.float32)}).summary


def files(folder: Path) -> set[str]:
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return found - {".lock"}


def name(called: str, sha256: str = ONE, created: int = 7) -> StoredName:
    made_from = {"text": " ocean", "token_ids": [3, 4]}
    return StoredName(called, sha256, created, made_from, "tiny", 3, SUMMARY)


def any_entry(_: Entry | None) -> None:
    """Guard nothing."""


def put(store: VectorStore, stored: StoredName, data: bytes) -> bool:
    return store.write(stored, data, any_entry)


def all_names(store: VectorStore) -> list[Entry]:
    return list(dict(sorted(store.find(store.list_names()).items())).values())


@pytest.fixture
def store(tmp_path: Path) -> VectorStore:
    return VectorStore(tmp_path)


@pytest.fixture(params=["folder", "memory"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "folder" else f"memory://{uuid.uuid4()}"


def test_what_was_written_is_read_by_the_next_server(location: str) -> None:
    store = VectorStore(location)
    assert put(store, name("b"), b"one")
    assert put(store, name("a.json"), b"one")
    assert put(store, name("a-1_x.y", TWO), b"two")
    again = VectorStore(location)
    assert again.list_names() == ["a-1_x.y", "a.json", "b"]
    assert all_names(again) == [name("a-1_x.y", TWO), name("a.json"), name("b")]
    assert again.read(ONE) == b"one"
    assert again.read(TWO) == b"two"
    assert again.read("3" * 64) is None


def test_two_names_share_one_content(store: VectorStore, tmp_path: Path) -> None:
    put(store, name("a"), b"one")
    put(store, name("b"), b"one")
    assert len([file for file in files(tmp_path) if file.startswith("contents")]) == 1
    store.delete("a", any_entry)
    assert all_names(store) == [name("b")]
    assert store.read(ONE) == b"one"
    store.delete("b", any_entry)
    assert files(tmp_path) == set()


def test_a_name_that_is_not_there_cannot_be_deleted(store: VectorStore) -> None:
    put(store, name("a"), b"one")
    store.delete("a", any_entry)
    with pytest.raises(NotFoundError, match="'a'"):
        store.delete("a", any_entry)


def test_a_name_moves_to_another_content_and_the_old_one_takes_no_room(
    store: VectorStore, tmp_path: Path
) -> None:
    assert put(store, name("a"), b"one")
    assert not put(store, name("a", TWO, 8), b"two")
    assert all_names(store) == [name("a", TWO, 8)]
    assert files(tmp_path) == {"names/a.json", f"contents/{TWO}.safetensors"}


def test_a_guard_sees_what_is_there_and_can_refuse(store: VectorStore, tmp_path: Path) -> None:
    seen: list[Entry | None] = []

    def refuse(entry: Entry | None) -> None:
        seen.append(entry)
        raise ConflictError("no")

    def write() -> None:
        store.write(name("a", TWO), b"two", refuse)

    with pytest.raises(ConflictError):
        write()
    assert files(tmp_path) == set()
    put(store, name("a"), b"one")
    for change in (write, lambda: store.delete("a", refuse)):
        with pytest.raises(ConflictError):
            change()
    assert seen == [None, name("a"), name("a")]
    assert files(tmp_path) == {"names/a.json", f"contents/{ONE}.safetensors"}


def test_too_many_names_or_bytes(location: str) -> None:
    store = VectorStore(location, max_names=2, max_bytes=10)
    put(store, name("a"), b"12345")
    put(store, name("b"), b"12345")
    with pytest.raises(StoreFullError, match="2 vectors") as caught:
        put(store, name("c"), b"12345")
    assert caught.value.param == "name"
    put(store, name("b", TWO), b"1234")
    with pytest.raises(StoreFullError, match="over 10 bytes") as caught:
        put(store, name("b", "3" * 64), b"1234567")
    assert caught.value.param == "body"
    assert all_names(store) == [name("a"), name("b", TWO)]
    assert store.read("3" * 64) is None


@pytest.mark.parametrize("fails_at", [1, 2])
def test_a_write_that_fails_leaves_nothing_half_written(
    fails_at: int, store: VectorStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, name("old"), b"one")
    before = files(tmp_path)
    move, calls = os.replace, []

    def full(source: str, target: str) -> None:
        calls.append(target)
        if len(calls) == fails_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        move(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(StoreFullError, match="No space"):
            put(store, name("new", TWO), b"two")
    assert all_names(store) == [name("old")]
    # The content may be there already, whole, until the next sweep; nothing else may.
    assert files(tmp_path) - before <= {f"contents/{TWO}.safetensors"}
    store.sweep()
    assert files(tmp_path) == before
    put(store, name("new", TWO), b"two")
    assert store.read(TWO) == b"two"


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"name": "a"}', b'{"sha256": "../../etc", "created": 1}']
)
def test_a_damaged_name_is_told_apart_and_can_be_replaced_or_deleted(
    data: bytes, store: VectorStore, tmp_path: Path
) -> None:
    put(store, name("a"), b"one")
    put(store, name("b", TWO), b"two")
    (tmp_path / "names" / "a.json").write_bytes(data)
    assert all_names(store) == [BrokenName("a"), name("b", TWO)]
    store.sweep()
    assert store.read(ONE) == b"one", "what a damaged name means is not known, so nothing goes"
    put(store, name("a"), b"one")
    assert all_names(store) == [name("a"), name("b", TWO)]
    (tmp_path / "names" / "a.json").write_bytes(data)
    store.delete("a", any_entry)
    assert files(tmp_path) == {"names/b.json", f"contents/{TWO}.safetensors"}


def test_a_file_under_another_name_means_nothing(store: VectorStore, tmp_path: Path) -> None:
    put(store, name("a"), b"one")
    (tmp_path / "names" / "b.json").write_bytes((tmp_path / "names" / "a.json").read_bytes())
    (tmp_path / "names" / "UPPER.json").write_bytes(b"")
    assert all_names(store) == [name("a"), BrokenName("b")]


def test_a_sweep_takes_leftovers_and_nothing_else(store: VectorStore, tmp_path: Path) -> None:
    put(store, name("a"), b"one")
    whole = files(tmp_path)
    (tmp_path / "names" / ".half").write_bytes(b"{")
    (tmp_path / "contents" / ".half").write_bytes(b"{")
    (tmp_path / "contents" / f"{TWO}.safetensors").write_bytes(b"two")
    assert all_names(store) == [name("a")]
    store.sweep()
    assert files(tmp_path) == whole


def test_without_a_lock_a_sweep_spares_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    location = f"memory://{uuid.uuid4()}"
    store = VectorStore(location)
    put(store, name("a"), b"one")
    put(store, name("a", TWO), b"two")
    remote = RemoteFiles(location, [])
    remote.write("contents/.half", b"")
    store.sweep()
    assert store.read(ONE) == b"one"
    assert len(remote.listing("contents")) == 3
    monkeypatch.setattr(RemoteFiles, "grace_seconds", -1.0)
    store.sweep()
    assert [listed.name for listed in remote.listing("contents")] == [f"{TWO}.safetensors"]


def test_without_a_lock_a_content_that_a_sweep_took_is_written_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    location = f"memory://{uuid.uuid4()}"
    store, other = VectorStore(location), VectorStore(location)
    monkeypatch.setattr(RemoteFiles, "grace_seconds", -1.0)
    write = RemoteFiles.write

    def interrupted(self: RemoteFiles, path: str, data: bytes) -> None:
        if path.startswith("names/"):
            other.sweep()  # the content is there, and nothing points at it yet
        write(self, path, data)

    monkeypatch.setattr(RemoteFiles, "write", interrupted)
    put(store, name("a"), b"one")
    assert store.read(ONE) == b"one"


def test_a_place_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for location in (str(tmp_path / "file"), "nonsense://x"):
        with pytest.raises(StartupError) as caught:
            VectorStore(location)
        for word in ("vectors_dir", location, "SENSEFIELD_VECTORS_DIR"):
            assert word in str(caught.value)


@pytest.mark.parametrize("good", ["a", "0", "a" * 64, "calm.v2", "a-b_c", "9..9", "a.json"])
def test_names_that_are_allowed(good: str) -> None:
    assert check_name(good) == good


BAD_NAMES = ["", "A", ".a", "-a", "_a", "a" * 65, "a/b", "..", "../a", "a\\b", "a b", "a\n", "é"]


@pytest.mark.parametrize("bad", [*BAD_NAMES, "a\0", "x" * 5000, "\ud800"])
def test_names_that_are_not(bad: str, store: VectorStore, tmp_path: Path) -> None:
    with pytest.raises(BadRequestError) as caught:
        check_name(bad)
    assert caught.value.param == "name"
    assert "1 to 64 of a-z, 0-9" in caught.value.message
    assert len(caught.value.message) < 400
    caught.value.message.encode()
    for act in (
        lambda: put(store, replace(name("a"), name=bad), b"one"),
        lambda: store.delete(bad, any_entry),
        lambda: store.find([bad]),
    ):
        with pytest.raises(BadRequestError):
            act()
    assert files(tmp_path) == set()


@given(st.text(max_size=70))
def test_no_name_leaves_its_folder(called: str) -> None:
    try:
        check_name(called)
    except BadRequestError:
        return
    assert Path(f"{called}.json").name == f"{called}.json"
    assert Path(f"{called}.json").stem == called


CHILD = """
import sys
from tests.service.vectors.test_store import ONE, TWO, any_entry, name
from service.vectors.store import VectorStore
from service.errors import NotFoundError
store = VectorStore(sys.argv[1])
me = sys.argv[2]
print("ready", flush=True)
"""
FOREVER = """
big = {ONE: b"1" * (1 << 22), TWO: b"2" * (1 << 22)}
while True:
    for sha256, data in big.items():
        store.write(name("a", sha256), data, any_entry)
"""
CROWD = """
for at in range(60):
    sha256 = str(at % 3) * 64
    store.write(name(f"n{at % 5}", sha256), sha256.encode(), any_entry)
    if at % 4 == 3:
        try:
            store.delete(f"n{at % 5}", any_entry)
        except NotFoundError:
            pass
store.write(name(f"last-{me}"), ONE.encode(), any_entry)
"""


def child(folder: Path, code: str, me: str = "x") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(CHILD + code), str(folder), me]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_kill_9_in_the_middle_of_writes(tmp_path: Path) -> None:
    for _ in range(5):
        process = child(tmp_path, FOREVER)
        while not list(tmp_path.rglob(".*[!k]")):  # an unfinished file, not the lock
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
        store = VectorStore(tmp_path)
        for entry in all_names(store):
            assert isinstance(entry, StoredName)
            assert store.read(entry.sha256) == entry.sha256[:1].encode() * (1 << 22)
        store.sweep()
        named = {
            f"contents/{e.sha256}.safetensors"
            for e in all_names(store)
            if isinstance(e, StoredName)
        }
        assert files(tmp_path) == named | ({"names/a.json"} if named else set())


def test_two_processes_write_and_delete_at_once(tmp_path: Path) -> None:
    children = [child(tmp_path, CROWD, me) for me in "ab"]
    store = VectorStore(tmp_path)
    while any(process.poll() is None for process in children):
        for entry in store.find(store.list_names()).values():
            assert isinstance(entry, StoredName)
    assert [process.wait() for process in children] == [0, 0]
    for process in children:
        process.communicate()
    entries = all_names(store)
    assert {"last-a", "last-b"} <= {entry.name for entry in entries}
    for entry in entries:
        assert isinstance(entry, StoredName)
        assert store.read(entry.sha256) == entry.sha256.encode()


class TwoStores(RuleBasedStateMachine):
    """Two servers on one store are always what a dict would be."""

    names = st.sampled_from(["a", "b", "c"])
    contents = st.sampled_from([ONE, TWO, "3" * 64])
    which = st.integers(0, 1)

    @initialize(remote=st.booleans())
    def open(self, remote: bool) -> None:
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        location = f"memory://{uuid.uuid4()}" if remote else self.folder.name
        self.stores = [VectorStore(location, max_names=2) for _ in range(2)]
        self.model: dict[str, str] = {}
        self.remote = remote

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(which=which, called=names, sha256=contents)
    def write(self, which: int, called: str, sha256: str) -> None:
        seen: list[Any] = []
        full = called not in self.model and len(self.model) == 2
        try:
            new = self.stores[which].write(name(called, sha256), sha256.encode(), seen.append)
        except StoreFullError:
            assert full
            return
        assert not full
        before = self.model.get(called)
        assert new == (before is None)
        assert [entry and entry.sha256 for entry in seen] == [before]
        self.model[called] = sha256

    @rule(which=which, called=names)
    def delete(self, which: int, called: str) -> None:
        try:
            self.stores[which].delete(called, any_entry)
        except NotFoundError:
            assert called not in self.model
        else:
            del self.model[called]

    @rule(which=which)
    def sweep(self, which: int) -> None:
        self.stores[which].sweep()

    @invariant()
    def both_see_the_same(self) -> None:
        for store in self.stores:
            found = {entry.name: entry for entry in all_names(store)}
            assert {called: entry.sha256 for called, entry in found.items()} == self.model  # type: ignore[union-attr]
            for sha256 in self.model.values():
                assert store.read(sha256) == sha256.encode()
        if not self.remote:
            contents = {path.stem for path in Path(self.folder.name, "contents").iterdir()}
            assert contents == set(self.model.values())


TestTwoStores = TwoStores.TestCase
TestTwoStores.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
