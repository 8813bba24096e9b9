"""Which tests one process runs after another, and in which order they are handed out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.integration.shared import run_folder

LONG = ("tests/deploy", "tests/faults", "tests/integration")
"""Folders whose tests use servers."""
LONGEST = ("v2", "faults")
"""Groups to begin with: what a group does, one process does alone."""


class Together(LoadScopeScheduling):
    """Keeps the tests of a group in one process, and those of a file that are in no group.

    A group is named by ``@pytest.mark.xdist_group``. xdist's own scheduler of groups reads their
    names from test ids, where it cannot write them with pytest 9: the processes that collect the
    tests leave them in the run's folder instead.
    """

    @cached_property
    def _groups(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(_file().read_text())
        return found

    def _split_scope(self, nodeid: str) -> str:
        return self._groups.get(nodeid) or nodeid.partition("::")[0]


def _file() -> Path:
    return run_folder() / "groups.json"


def keep_groups(items: Sequence[pytest.Item], worker: str) -> None:
    """Write the groups of tests where the scheduler reads them; each process writes the same."""
    marked = ((item.nodeid, item.get_closest_marker("xdist_group")) for item in items)
    groups = {nodeid: mark.args[0] for nodeid, mark in marked if mark}
    part = _file().with_suffix(f".{worker}")
    part.write_text(json.dumps(groups))
    part.rename(_file())


def rank(item: pytest.Item) -> int:
    """Return a test's place: groups, others that use servers, all others.

    Quick files come last and fill the time that one process would wait for the other.
    """
    if mark := item.get_closest_marker("xdist_group"):
        return LONGEST.index(mark.args[0]) if mark.args[0] in LONGEST else len(LONGEST)
    return len(LONGEST) + (1 if item.nodeid.startswith(LONG) else 2)
