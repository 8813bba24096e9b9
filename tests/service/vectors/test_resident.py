"""The contents that workers hold, against an engine that records what it is told."""

from __future__ import annotations

import numpy as np
import pytest

from service.vectors import resident
from service.vectors.content import VectorContent
from service.vectors.resident import ResidentContents
from tests.registry_support import HIDDEN
from tests.unit_support import FakeEngine


async def test_many_contents_are_scored_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident, "_AT_ONCE", 2)
    contents = [VectorContent({"direction": np.full(HIDDEN, at, np.float32)}) for at in range(1, 6)]
    engine = FakeEngine(HIDDEN)
    assert await ResidentContents(engine).put([*contents, contents[0]]) == {}
    assert [len(vectors) for _, (vectors, _) in engine.calls] == [2, 2, 1]
    assert engine.resident == {content.sha256 for content in contents}
