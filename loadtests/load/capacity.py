"""The capacity of a server within its objectives, from the samples of a ramp."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.load.objectives import Objectives, Sample
from loadtests.measure.latency import percentile


@dataclass(frozen=True)
class Step:
    """The latencies and rate with one number of users."""

    users: int
    requests: int
    tokens_per_second: float
    ttft_p99: float | None
    itl_p99: float | None
    missed: Sequence[str]


def steps(samples: Sequence[Sample], objectives: Objectives) -> list[Step]:
    """Return a step for each number of users; requests during which it changed count for none.

    Users ask again at once, so that all of them always wait for an answer: the rate is their
    number times the tokens of an answer over its seconds.
    """
    found = []
    for users in sorted({sample.users for sample in samples} - {0}):
        here = [sample for sample in samples if sample.users == users]
        served = [sample for sample in here if not sample.error]
        tokens, seconds = sum(s.tokens for s in served), sum(s.seconds for s in here)
        found.append(
            Step(
                users,
                len(here),
                users * tokens / seconds,
                percentile([s.ttft for s in served], 99),
                percentile([gap for s in served for gap in s.itls], 99),
                objectives.missed(here),
            )
        )
    return found


def capacity(found: Sequence[Step]) -> Step | None:
    """Return the step of the largest rate among those that keep the objectives."""
    return max(
        (step for step in found if not step.missed),
        key=lambda step: step.tokens_per_second,
        default=None,
    )
