"""Token scores of vectors, on vLLM's own GPT-2 of four tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from logit_processors.directions import Directions
from service.engine import vector_scores
from service.engine.unembedding import token_scores
from service.engine.vector_scores import extremes_of_layers, keep
from tests.unit_support import same

WIDTH = 6
"""Two logits more than tokens."""


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Directions:
    """The table that vectors are kept in, empty."""
    directions = Directions()
    monkeypatch.setattr(vector_scores, "DIRECTIONS", directions)
    return directions


def data(*values: float) -> bytes:
    return np.array(values, np.float32).tobytes()


def test_vectors_of_both_spaces_are_scored_together(
    gpt2: Any, kept: Directions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: W_U·(1, 0, 0) = (1, 0, 0, 1), and of (3, 0, 0) less its mean (2, -1, -1, 0)."""
    passes: list[int] = []

    def counted(model: Any, directions: torch.Tensor) -> torch.Tensor:
        passes.append(len(directions))
        return token_scores(model, directions)

    monkeypatch.setattr(vector_scores, "token_scores", counted)
    vectors = [
        ("one", data(1, 0, 0), False),
        ("stream", data(3, 0, 0), True),
        ("even", data(2, 2, 2), True),
        ("other", data(0, 1, 0), False),
    ]
    reasons = keep(gpt2, WIDTH, vectors, "first")
    assert [reason is None for reason in reasons] == [True, True, False, True]
    assert "no direction" in str(reasons[2])
    assert passes == [2, 2]
    assert kept.scores("one").tolist() == [1, -1, -1, 1, 0, 0]
    assert kept.scores("other").tolist() == [-1, 1, -1, 1, 0, 0]
    wanted = np.array([2, -1, -1, 0, 0, 0]) / np.sqrt(1.5)
    np.testing.assert_allclose(kept.scores("stream"), wanted, rtol=1e-6)

    assert keep(gpt2, WIDTH, vectors[:2], "second") == [None, None]
    assert passes == [2, 2], "what is here is not scored again"
    kept.drop("one", "first")
    assert "one" in kept
    kept.drop("one", "second")
    assert "one" not in kept


def test_a_model_whose_norm_is_unknown_keeps_vectors_of_the_unembedding(
    gpt2: Any, kept: Directions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gpt2.transformer._modules, "ln_f", torch.nn.Identity())
    vectors = [("stream", data(3, 0, 0), True), ("one", data(1, 0, 0), False)]
    reasons = keep(gpt2, WIDTH, vectors, "first")
    assert "Identity" in str(reasons[0])
    assert reasons[1] is None
    assert "stream" not in kept


def test_many_vectors_have_the_scores_that_each_has_alone(gpt2: Any, kept: Directions) -> None:
    rows = np.random.default_rng(3).standard_normal((20, 3)).astype(np.float32)
    keep(gpt2, WIDTH, [(f"all {at}", row.tobytes(), True) for at, row in enumerate(rows)], "first")
    for at, row in enumerate(rows):
        keep(gpt2, WIDTH, [(f"alone {at}", row.tobytes(), True)], "first")
        assert same(kept.scores(f"all {at}"), kept.scores(f"alone {at}"))


def test_a_layer_that_moves_no_token_has_none(gpt2: Any) -> None:
    found = extremes_of_layers(gpt2, torch.tensor([[2.0, 2.0, 2.0], [3.0, 0.0, 0.0]]), 4, 1)
    assert found[0] == {"raised_ids": [], "raised": [], "lowered_ids": [], "lowered": []}
    assert found[1]["raised_ids"] == [0]
    assert same(torch.tensor(found[1]["raised"]), torch.tensor([2 / 1.5**0.5]))
