"""Requests and a planner for the tests of plans."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from logit_processors.vocabulary import Vocabulary
from service.planning.asked import Asked
from service.planning.budget import Budget
from service.planning.patterns import Patterns
from service.planning.planner import Planner
from service.schemas.control import LogitControl
from service.schemas.distribution import DistributionRequest
from service.settings import Settings
from service.vectors.registry import VectorRegistry
from service.vectors.residual_bank import ResidualSupport
from service.vectors.store import VectorStore
from tests.unit_support import FakeEngine, model_facts

VOCAB, WIDTH = 90, 96  # a model may pad its logits
NOTHING = Asked(None, None, None, None, "top_logprobs", False, 1, False, False)
SUPPRESS: dict[str, Any] = {"suppress": [{"token_id": 3}]}
BIAS: dict[str, Any] = {"bias": [{"token_id": 3, "add": 1.0}]}
STEER: dict[str, Any] = {"steer": [{"vector": "calm", "strength": 1.0}]}


def asked(
    control: dict[str, Any] | None = None,
    distribution: dict[str, Any] | None = None,
    **fields: Any,
) -> Asked:
    return replace(
        NOTHING,
        control=None if control is None else LogitControl.model_validate(control),
        distribution=(
            None if distribution is None else DistributionRequest.model_validate(distribution)
        ),
        **fields,
    )


def new_planner(folder: Path, engine: FakeEngine) -> Planner:
    """Return a planner with vectors in a folder and ten kilobytes for a request's rows."""
    settings = Settings(vectors_dir=folder)
    support = ResidualSupport(None, engine.residual_capacity)
    vectors = VectorRegistry(VectorStore(folder), engine, model_facts(), support)
    budget = Budget(10_000, 15_000)
    patterns = Patterns(Vocabulary([b"%d" % token for token in range(VOCAB)], width=WIDTH), 1)
    return Planner(settings, vectors, VOCAB, WIDTH, budget, patterns, lambda text: [len(text)])
