"""A client of the vector routes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.service.api.vector_routes import vector_routes


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with vector_routes(tmp_path) as client:
        yield client
