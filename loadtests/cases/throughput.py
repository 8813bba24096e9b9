"""The cases whose throughput is compared: what runs, against what, and the goal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.cases.chats import (
    plain,
    with_control,
    with_distribution,
    with_logprobs,
    with_residual,
)
from loadtests.measure.client import Request
from loadtests.measure.results import Goal, at_least
from loadtests.measure.servers import SENSEFIELD, STOCK

PLAIN, CONTROL = "plain", "control"
RESIDUAL_ONE, RESIDUAL_ALL = "residual-one", "residual-all"
WIDE = (64, 256)
"""Requests of the large batches; a batch eight times as large takes about twice as long."""
RESIDUAL_WIDE = {count: f"residual-{count}" for count in WIDE}
CONCURRENCY = 8
BOTH = ["base", "controlled"]
_WHOLE = -1


@dataclass(frozen=True)
class Load:
    """Requests sent at once to one server."""

    server: str
    requests: Sequence[Request]


@dataclass(frozen=True)
class Pair:
    """A load with a feature and one without it, measured in turns."""

    feature: Load
    baseline: Load
    max_rounds: int | None = None
    """Rounds at most, for a load too slow to repeat."""


@dataclass(frozen=True)
class Case:
    """A row of the table; ``stock`` is what stock vLLM does in its place, for comparison."""

    name: str
    title: str
    goal: Goal
    ours: Pair
    stock: Pair | None = None

    @property
    def names_vectors(self) -> bool:
        """True if its requests steer, so that the vectors must be made first."""
        return any("logit_control" in request.payload for request in self.ours.feature.requests)


def throughput_cases(tokens: int) -> list[Case]:
    """Return all cases; each request of a batch of 8 generates so many tokens.

    Stock vLLM gets fewer where it is slow, with the feature and without it alike.
    """
    eight, few = CONCURRENCY, max(2, tokens // 4)
    return [
        Case(
            PLAIN,
            "plain chat, Sensefield over stock vLLM",
            at_least(1.00),
            Pair(Load(SENSEFIELD, plain(tokens, eight)), Load(STOCK, plain(tokens, eight))),
        ),
        Case(
            "top20",
            "top-20, both stages",
            at_least(0.97),
            against_plain(with_distribution(tokens, *[20] * eight, stages=BOTH)),
            _stock(with_logprobs(tokens, *[20] * eight)),
        ),
        Case(
            "top1000",
            "top-1000, one stage",
            at_least(0.95),
            against_plain(with_distribution(tokens, *[1000] * eight)),
            _stock(with_logprobs(few, *[1000] * eight)),
        ),
        Case(
            "top1000-both",
            "top-1000, both stages",
            at_least(0.93),
            against_plain(with_distribution(tokens, *[1000] * eight, stages=BOTH)),
        ),
        Case(
            "vocabulary",
            "whole vocabulary, float16, one stage",
            at_least(0.95),
            against_plain(with_distribution(tokens, *["all"] * eight, dtype="float16")),
            # Seconds a token: two are enough, and a baseline of two would be mostly prompt.
            Pair(
                Load(STOCK, with_logprobs(2, *[_WHOLE] * eight)),
                Load(STOCK, plain(tokens, eight)),
                max_rounds=1,
            ),
        ),
        control_case(tokens, WIDE[0]),
        Case(
            RESIDUAL_ONE,
            "own vector in the residual stream, one layer",
            at_least(0.99),
            against_plain(with_residual(tokens, eight, [1])),
        ),
        Case(
            RESIDUAL_ALL,
            "own vector in the residual stream, all layers",
            at_least(0.97),
            against_plain(with_residual(tokens, eight)),
        ),
        *(
            Case(
                RESIDUAL_WIDE[count],
                f"the same, all layers, {count} different in a batch",
                at_least(0.97),
                against_plain(with_residual(max(2, tokens // 2), count)),
            )
            for count in WIDE
        ),
        Case(
            "neighbour",
            "one asking top-1000 beside seven asking top-5",
            at_least(0.95),
            Pair(
                Load(SENSEFIELD, with_distribution(tokens, 1000, *[5] * 7)),
                Load(SENSEFIELD, with_distribution(tokens, *[5] * eight)),
            ),
            Pair(
                Load(STOCK, with_logprobs(few, 1000, *[5] * 7)),
                Load(STOCK, with_logprobs(few, *[5] * eight)),
            ),
        ),
    ]


def control_case(tokens: int, count: int) -> Case:
    """Return the case of so many requests, no two of them controlled alike."""
    return Case(
        CONTROL if count == WIDE[0] else f"{CONTROL}-{count}",
        f"own bias, suppress and steer, {count} different in a batch",
        at_least(0.97),
        against_plain(with_control(max(2, tokens // 2), count)),
    )


def against_plain(requests: Sequence[Request]) -> Pair:
    """Return requests to Sensefield, and the same without what they ask for."""
    return Pair(Load(SENSEFIELD, requests), Load(SENSEFIELD, _plain_like(requests)))


def _stock(requests: Sequence[Request]) -> Pair:
    return Pair(Load(STOCK, requests), Load(STOCK, _plain_like(requests)))


def _plain_like(requests: Sequence[Request]) -> list[Request]:
    """Return the same prompts, as many and as long, that ask for nothing special."""
    return plain(requests[0].tokens, len(requests))
