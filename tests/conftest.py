"""Which tests run in one process when two run them: all that share a server."""

from __future__ import annotations

import pytest

SHARED_SERVERS = frozenset({"v1", "v2", "crowded"})
"""Fixtures of tests/integration that serve many files, and take a minute to start."""


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the files that ask for a shared server together, and each other file by itself."""
    sharing = {item.path for item in items if SHARED_SERVERS.intersection(fixtures_of(item))}
    for item in items:
        group = "shared servers" if item.path in sharing else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


def fixtures_of(item: pytest.Item) -> list[str]:
    """Return the names of the fixtures that a test stands on."""
    names: list[str] = getattr(item, "fixturenames", [])
    return names
