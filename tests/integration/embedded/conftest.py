"""A server that is started without naming a model, as `make serve` starts it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.servers import OwnServer, serving_embedded


@pytest.fixture(scope="package")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    """The embedded model, in bfloat16.

    README's examples are the first to use it: the metrics that they show count from its start.
    """
    with serving_embedded(tmp_path_factory.mktemp("embedded")) as server:
        yield server
