"""Which tests run in one process when two run them: all that share a server."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.integration.servers import REPOSITORY

_ASKS = re.compile(r"\b(?:v1|v2|crowded): ")
"""A parameter that is one of the fixtures which serve many files, and take a minute to start."""


class Together(LoadScopeScheduling):
    """Keeps the files that ask for a shared server together, and each other file by itself."""

    def _split_scope(self, nodeid: str) -> str:
        return _scope_of(nodeid.partition("::")[0])


@cache
def _scope_of(file: str) -> str:
    return "shared servers" if _ASKS.search((REPOSITORY / file).read_text()) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    """Schedule as above."""
    return Together(config, log)
