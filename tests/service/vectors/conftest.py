"""A registry on an empty store, and the engine that records what it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.vectors.registry import VectorRegistry
from tests.registry_support import HIDDEN, new_registry
from tests.unit_support import FakeEngine


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(HIDDEN)


@pytest.fixture
def registry(tmp_path: Path, engine: FakeEngine) -> VectorRegistry:
    return new_registry(tmp_path, engine)
