"""Count the resources that a worker holds for running requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from logit_processors.processor import ControlProcessor


def held_by(runner: Any) -> dict[str, int]:
    """Return the resources of a worker's V1 or V2 model runner; empty if it samples no tokens."""
    processors: Sequence[Any] = ()
    if (batch := getattr(runner, "input_batch", None)) is not None:
        processors = batch.logitsprocs.non_argmax_invariant
    elif (sampler := getattr(runner, "sampler", None)) is not None:
        processors = sampler.logits_processors
    found = (each.held() for each in processors if isinstance(each, ControlProcessor))
    return next(found, {})
