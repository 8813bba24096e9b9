"""No request is touched by another's control, and none by what happens to its slot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.integration.client import Client, array
from tests.integration.test_exactness import CONTROLS

PROMPT = "The history of the city begins with a small group of people who"
SEEN: dict[str, Any] = {"top_k": 20, "stages": ["base", "controlled"]}
STRONG: dict[str, Any] = {
    "bias": [{"text": " river", "add": 8.0}, {"token_id": 28, "add": 4.0}],
    "suppress": [{"text": "the", "ignore_case": True}],
}


def _plain_controls() -> list[dict[str, Any]]:
    return [control for control in CONTROLS if "steer" not in control and control]


def test_a_plain_request_beside_controlled_ones_is_as_if_alone(v1: Client) -> None:
    alone = v1.choice(PROMPT, max_tokens=24, distribution=SEEN)
    neighbours = [
        {"prompt": PROMPT, "max_tokens": 8 + at, "logit_control": control, "distribution": SEEN}
        for at, control in enumerate(_plain_controls() + [STRONG] * 4)
    ][:15]
    plain = {"prompt": PROMPT, "max_tokens": 24, "distribution": SEEN}
    beside = v1.together([plain, *neighbours])[0]
    assert beside["token_ids"] == alone["token_ids"]
    for stage in SEEN["stages"]:
        rows = [array(c["distribution"][stage]["logprobs"]) for c in (beside, alone)]
        assert np.abs(rows[0] - rows[1]).max() <= 1e-3
    assert not array(beside["distribution"]["kl"]).any()


def test_slots_are_clean_when_they_are_used_again(v2: Client) -> None:
    alone = v2.choice(PROMPT, max_tokens=4)["token_ids"]
    v2.together([{"prompt": PROMPT, "max_tokens": 2, "logit_control": STRONG}] * 8)
    plain = v2.together([{"prompt": PROMPT, "max_tokens": 4}] * 8)
    assert [choice["token_ids"] for choice in plain] == [alone] * 8


@pytest.mark.parametrize(
    "control",
    [
        {"bias": [{"token_id": 28, "add": 0.0}, {"text": " a", "add": 0}]},
        {"bias": [{"token_id": 28, "add": 9.0}, {"token_id": 28, "add": -9.0}]},
        {"suppress": [{"token_id": 253, "when": {"from": 400}}]},
        {"bias": [{"text": " a", "add": 9, "when": {"from": 399}}]},
    ],
)
def test_control_that_does_nothing_changes_nothing(v1: Client, control: dict[str, Any]) -> None:
    plain = v1.choice(PROMPT, max_tokens=12, distribution=SEEN)
    controlled = v1.choice(PROMPT, max_tokens=12, distribution=SEEN, logit_control=control)
    assert controlled["token_ids"] == plain["token_ids"]
    assert np.abs(array(controlled["distribution"]["kl"])).max() <= 1e-6


def test_every_choice_of_n_keeps_its_own_state(v1: Client) -> None:
    answer = v1.complete(
        PROMPT, n=4, temperature=1, seed=5, max_tokens=20, logit_control=STRONG, distribution=SEEN
    )
    texts = [choice["text"] for choice in answer["choices"]]
    assert len(set(texts)) > 1
    for choice in answer["choices"]:
        assert "the" not in choice["text"].lower()
        ids = array(choice["distribution"]["sampled"]["token_id"]).tolist()
        assert ids == choice["token_ids"]
