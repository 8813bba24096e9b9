"""Keys that change under a running server: all at once, or not at all."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from service.access.key_file import WatchedKeys
from service.access.keys import Key
from service.errors import StartupError

ALICE, BOB, ROOT = (Key.of(name, ["inference"], name) for name in ("alice", "bob", "root"))


def write(file: Path, *keys: Key) -> None:
    """Put a file with keys in a file's place, as an operator or Kubernetes does."""
    other = file.with_suffix(".new")
    other.write_text("".join(f"{key.to_line()}\n" for key in keys))
    other.replace(file)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    write(file, ALICE)
    return file


def names(keys: WatchedKeys) -> list[str]:
    """Return whose secrets are known, of all there are."""
    return [key.name for key in (ALICE, BOB, ROOT) if keys().find(key.name)]


def test_a_changed_file_takes_the_place_of_the_old(file: Path) -> None:
    keys = WatchedKeys(ROOT.to_line(), str(file))
    assert names(keys) == ["alice", "root"]
    write(file, BOB)
    assert names(keys) == ["bob", "root"]
    file.write_text(f"{ALICE.to_line()}\n{BOB.to_line()}\n")
    assert names(keys) == ["alice", "bob", "root"]


def test_a_file_that_did_not_change_is_not_read(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = WatchedKeys("", str(file))
    monkeypatch.setattr(Path, "read_text", None)
    assert names(keys) == ["alice"]


@pytest.mark.parametrize("text", ["", "# none\n", f"{BOB.to_line()}\nnonsense\n", None])
def test_a_broken_file_changes_nothing_and_is_told_once(
    text: str | None, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = WatchedKeys("", str(file))
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    with caplog.at_level(logging.ERROR, "vllm.sensefield"):
        assert [names(keys) for _ in range(3)] == [["alice"]] * 3
    (told,) = caplog.records
    assert str(file) in told.getMessage()
    write(file, BOB)
    assert names(keys) == ["bob"]


def test_a_file_that_is_broken_at_the_start_is_refused(file: Path) -> None:
    file.write_text("nonsense")
    with pytest.raises(StartupError, match="line 1"):
        WatchedKeys("", str(file))


def test_keys_need_no_file() -> None:
    assert names(WatchedKeys(ROOT.to_line(), None)) == ["root"]
    assert not WatchedKeys("", None)()
