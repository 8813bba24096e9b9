"""The store: whole files only, one content for all of its names, shared by several servers."""

from __future__ import annotations

import errno
import os
import uuid
from pathlib import Path

import pytest

from service.errors import (
    ConflictError,
    NotFoundError,
    StartupError,
    StoreFullError,
)
from service.vectors.files import RemoteFiles
from service.vectors.store import BrokenName, Entry, VectorStore
from tests.service.vectors.storing import ONE, TWO, all_names, any_entry, files, name, put


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


def test_what_a_replacement_leaves_behind_takes_no_room(tmp_path: Path) -> None:
    store = VectorStore(tmp_path, max_names=3, max_bytes=10)
    put(store, name("a"), b"12345678")
    assert not put(store, name("a", TWO), b"123456789")
    assert files(tmp_path) == {"names/a.json", f"contents/{TWO}.safetensors"}
    put(store, name("b", TWO), b"123456789")
    with pytest.raises(StoreFullError, match="over 10 bytes"):
        put(store, name("a"), b"12")  # the other name keeps what this one would leave
    store.delete("a", any_entry)
    (tmp_path / "names" / "broken.json").write_bytes(b"{")
    with pytest.raises(StoreFullError, match="over 10 bytes"):
        put(store, name("b"), b"12")  # what the broken name means may be this content
    assert not put(store, name("broken", "3" * 64), b"1")
    assert all_names(store) == [name("b", TWO), name("broken", "3" * 64)]


def test_what_no_name_points_at_takes_no_room(tmp_path: Path) -> None:
    store = VectorStore(tmp_path, max_bytes=10)
    left = tmp_path / "contents" / f"{TWO}.safetensors"
    left.write_bytes(b"what a crash left")
    assert put(store, name("a"), b"1234567890")
    assert files(tmp_path) == {"names/a.json", f"contents/{ONE}.safetensors"}


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
