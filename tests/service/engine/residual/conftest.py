"""A simulated engine, new for each test."""

from __future__ import annotations

import pytest

from tests.service.engine.residual.simulation import Simulation


@pytest.fixture
def simulation() -> Simulation:
    return Simulation()
