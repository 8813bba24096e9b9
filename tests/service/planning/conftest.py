"""A planner over an engine that only notes what it holds."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from service.planning.planner import Planner
from tests.service.planning.asking import new_planner
from tests.unit_support import FakeEngine


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def planner(tmp_path: Path, engine: FakeEngine) -> Planner:
    return new_planner(tmp_path, engine)


@pytest.fixture
def params() -> SimpleNamespace:
    """The part of vLLM's SamplingParams that a plan touches."""
    return SimpleNamespace(logprobs=None, extra_args=None)
