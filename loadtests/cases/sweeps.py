"""Sweeps: one load at growing sizes, each size a case of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from loadtests.cases.chats import TOPICS, plain, with_distribution
from loadtests.cases.throughput import BOTH, CONTROL, Case, Load, Pair, against_plain, control_case
from loadtests.measure.results import at_least
from loadtests.measure.servers import SENSEFIELD, STOCK

STREAMS = (1, 2, 4, 8, 16, 32, len(TOPICS))
CONFIGURATIONS = (1, 8, 64, 256)
PLAIN_AT = {streams: f"plain-{streams}" for streams in STREAMS}
BOTH_AT = {streams: f"top1000-both-{streams}" for streams in STREAMS}
CONTROL_AT = {count: control_case(2, count).name for count in CONFIGURATIONS}

SWEEPS: Mapping[str, tuple[str, ...]] = {
    "concurrency": (*PLAIN_AT.values(), *BOTH_AT.values()),
    "configurations": tuple(CONTROL_AT.values()),
}
"""Names under which all sizes of a sweep can be chosen."""


@dataclass(frozen=True)
class Line:
    """A curve of a chart: one side of the rounds of the cases of each size."""

    label: str
    cases: Mapping[int, str]
    side: str


LINES = (
    Line("plain chat, Sensefield", PLAIN_AT, "feature"),
    Line("plain chat, stock vLLM", PLAIN_AT, "baseline"),
    Line("top-1000, both stages, Sensefield", BOTH_AT, "feature"),
)


def sweep_cases(tokens: int) -> list[Case]:
    """Return the cases of all sweeps that are not among the others.

    A request generates half of ``tokens``: the large sizes make up for it.
    """
    few = max(2, tokens // 2)
    return [
        *(
            Case(
                PLAIN_AT[streams],
                f"plain chat, Sensefield over stock vLLM, {streams} at once",
                at_least(1.00),
                Pair(Load(SENSEFIELD, plain(few, streams)), Load(STOCK, plain(few, streams))),
            )
            for streams in STREAMS
        ),
        *(
            Case(
                BOTH_AT[streams],
                f"top-1000, both stages, {streams} at once",
                at_least(0.93),
                against_plain(with_distribution(few, *[1000] * streams, stages=BOTH)),
            )
            for streams in STREAMS
        ),
        *(control_case(tokens, n) for n in CONFIGURATIONS if CONTROL_AT[n] != CONTROL),
    ]
