"""An empty store, a registry, and the engine that records what it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.vectors.registry import VectorRegistry
from service.vectors.store import VectorStore
from tests.registry_support import HIDDEN, new_registry
from tests.unit_support import FakeEngine


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(HIDDEN)


@pytest.fixture
def registry(tmp_path: Path, engine: FakeEngine) -> VectorRegistry:
    return new_registry(tmp_path, engine)


@pytest.fixture
def store(tmp_path: Path) -> VectorStore:
    return VectorStore(tmp_path)
