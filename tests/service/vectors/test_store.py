"""The folder of vectors: whole files only, one content for all of its names."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import BadRequestError, StartupError
from service.vectors.store import StoredName, VectorStore, check_name

ONE, TWO = "1" * 64, "2" * 64


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def name(called: str, sha256: str = ONE, created: int = 7) -> StoredName:
    return StoredName(called, sha256, created, {"text": " ocean", "token_ids": [3, 4]})


@pytest.fixture
def store(tmp_path: Path) -> VectorStore:
    return VectorStore(tmp_path)


def test_what_was_written_is_read_by_the_next_server(store: VectorStore, tmp_path: Path) -> None:
    store.write(name("b"), b"one")
    store.write(name("a.json"), b"one")
    store.write(name("a-1_x.y", TWO), b"two")
    again = VectorStore(tmp_path)
    assert again.names() == [name("a-1_x.y", TWO), name("a.json"), name("b")]
    assert again.read(ONE) == b"one"
    assert again.read(TWO) == b"two"


def test_two_names_share_one_content(store: VectorStore, tmp_path: Path) -> None:
    store.write(name("a"), b"one")
    store.write(name("b"), b"one")
    contents = [file for file in files(tmp_path) if file.startswith("contents")]
    assert len(contents) == 1
    store.delete(name("a"))
    assert [stored.name for stored in store.names()] == ["b"]
    assert store.read(ONE) == b"one"
    store.delete(name("b"))
    assert files(tmp_path) == set()


def test_deleting_twice_is_no_error(store: VectorStore) -> None:
    store.write(name("a"), b"one")
    store.delete(name("a"))
    store.delete(name("a"))
    assert store.names() == []


def test_a_name_moves_to_another_content(store: VectorStore) -> None:
    store.write(name("a"), b"one")
    store.write(name("a", TWO, 8), b"two")
    assert store.names() == [name("a", TWO, 8)]
    assert store.read(TWO) == b"two"


def test_a_content_without_a_name_takes_no_room(store: VectorStore, tmp_path: Path) -> None:
    # Or else replacing one vector over and over fills the disk, within any max_vectors.
    store.write(name("a"), b"one")
    store.write(name("a", TWO), b"two")
    contents = [file for file in files(tmp_path) if file.startswith("contents")]
    assert len(contents) == 1


@pytest.mark.parametrize("fails_at", [1, 2])
def test_a_write_that_fails_leaves_nothing_half_written(
    fails_at: int, store: VectorStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(name("old"), b"one")
    before = files(tmp_path)
    replace, calls = os.replace, []

    def full(source: str, target: str) -> None:
        calls.append(target)
        if len(calls) == fails_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        store.write(name("new", TWO), b"two")
    assert [stored.name for stored in store.names()] == ["old"]
    # The content may be there already, whole; a name or a part of a file may not.
    assert not {
        file for file in files(tmp_path) - before if not file.endswith(f"{TWO}.safetensors")
    }
    monkeypatch.setattr(os, "replace", replace)
    store.write(name("new", TWO), b"two")
    assert store.read(TWO) == b"two"


def test_a_part_of_a_file_is_never_under_its_name(
    store: VectorStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, moved = os.replace, []

    def watched(source: str, target: Path) -> None:
        assert not target.exists()
        assert Path(source).parent == target.parent  # a rename within one folder is atomic
        moved.append(Path(source).read_bytes())
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    store.write(name("a"), b"one")
    assert moved[0] == b"one"
    assert VectorStore(tmp_path).names() == [name("a")]


def test_a_temporary_file_of_a_crash_is_no_name(store: VectorStore, tmp_path: Path) -> None:
    store.write(name("a"), b"one")
    (tmp_path / "names" / ".half-written").write_bytes(b"{")
    assert [stored.name for stored in store.names()] == ["a"]


def test_a_folder_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StartupError) as caught:
        VectorStore(tmp_path / "file")
    for word in ("vectors_dir", str(tmp_path / "file"), "SENSEFIELD_VECTORS_DIR"):
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
    with pytest.raises(BadRequestError):
        store.write(name(bad), b"one")
    assert not {file for file in files(tmp_path) if not file.startswith("contents")}


@given(st.text(max_size=70))
def test_no_name_leaves_its_folder(called: str) -> None:
    try:
        check_name(called)
    except BadRequestError:
        return
    assert Path(f"{called}.json").name == f"{called}.json"
    assert Path(f"{called}.json").stem == called
