"""A planner over an engine that only notes what it holds."""

from __future__ import annotations

from pathlib import Path

import pytest
from vllm.sampling_params import SamplingParams

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
def params() -> SamplingParams:
    """Those of a request that asks for nothing."""
    return SamplingParams()
