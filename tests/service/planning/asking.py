"""Requests for the tests of plans."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from service.planning.asked import Asked
from service.schemas.control import LogitControl
from service.schemas.distribution import DistributionRequest

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
