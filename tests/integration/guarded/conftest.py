"""A server with keys and low limits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.guarded.server import Guarded, serving_guarded


@pytest.fixture(scope="package")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A V1 server on a shared network: keys, and limits low enough to be met."""
    with serving_guarded(tmp_path_factory.mktemp("guarded")) as server:
        yield server
