"""How tests of several processes share servers: turns, and groups that stay in one process."""

from __future__ import annotations

import fcntl
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from tests import scheduling
from tests.integration import shared
from tests.waiting import wait_for


@pytest.fixture(autouse=True)
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run's folder of its own."""
    monkeypatch.setattr(shared, "run_folder", lambda: tmp_path)
    monkeypatch.setattr(scheduling, "run_folder", lambda: tmp_path)
    return tmp_path


class Turn(threading.Thread):
    """Holds a turn until it is told to let go."""

    def __init__(self, *servers: str, alone: bool = False) -> None:
        super().__init__(daemon=True)
        self._turn = ({*servers}, alone)
        self.holds, self.let_go = threading.Event(), threading.Event()
        self.start()

    def run(self) -> None:
        with shared.turn(*self._turn):
            self.holds.set()
            self.let_go.wait()

    def end(self) -> None:
        self.let_go.set()
        self.join()


def test_tests_share_a_server_unless_one_wants_to_be_alone() -> None:
    first, second = Turn("v1"), Turn("v1", "v2")
    assert first.holds.wait(60)
    assert second.holds.wait(60)
    only = Turn("v1", alone=True)
    first.end()
    wait_for(gate_is_shut)
    assert not only.holds.is_set(), "the second still holds its turn"
    second.end()
    assert only.holds.wait(60)
    late = Turn("v1")
    wait_for(gate_is_shut)
    assert not late.holds.is_set()
    elsewhere = Turn("v2")
    assert elsewhere.holds.wait(60)
    only.end()
    assert late.holds.wait(60)
    late.end()
    elsewhere.end()


def test_who_waits_to_be_alone_is_not_overtaken() -> None:
    first = Turn("v1")
    assert first.holds.wait(60)
    only = Turn("v1", alone=True)
    wait_for(gate_is_shut)
    late = Turn("v1")
    first.end()
    assert only.holds.wait(60)
    assert not late.holds.is_set()
    only.end()
    assert late.holds.wait(60)
    late.end()


def gate_is_shut() -> bool:
    """Say whether a test waits for its turn: a gate that can be locked is open."""
    with (shared.run_folder() / "v1.gate").open("w") as gate:
        try:
            fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_a_group_stays_together_and_each_other_file_by_itself(run: Path) -> None:
    (run / "groups.json").write_text(json.dumps({"tests/a.py::test[x::y]": "faults"}))
    scheduler: Any = scheduling.Together.__new__(scheduling.Together)
    assert scheduler._split_scope("tests/a.py::test[x::y]") == "faults"
    assert scheduler._split_scope("tests/a.py::other") == "tests/a.py"
