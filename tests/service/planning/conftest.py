"""A planner over an engine that only notes what it holds."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from service.planning.budget import Budget
from service.planning.planner import Planner
from service.settings import Settings
from service.vectors.registry import VectorRegistry
from service.vectors.residual_bank import ResidualSupport
from service.vectors.store import VectorStore
from tests.service.planning.asking import VOCAB, WIDTH
from tests.unit_support import FakeEngine, model_facts


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def planner(tmp_path: Path, engine: FakeEngine) -> Planner:
    settings = Settings(vectors_dir=tmp_path, max_top_logprobs=None)
    support = ResidualSupport(None, engine.residual_capacity)
    vectors = VectorRegistry(VectorStore(tmp_path), engine, model_facts(), support)
    budget = Budget(10_000, 15_000)
    return Planner(settings, vectors, VOCAB, WIDTH, budget, lambda text: [len(text)])


@pytest.fixture
def params() -> SimpleNamespace:
    """The part of vLLM's SamplingParams that a plan touches."""
    return SimpleNamespace(logprobs=None, extra_args=None)
