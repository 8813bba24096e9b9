"""Metrics of the resources that workers hold for running requests.

The call waits for the end of a step, and workers spin for a second after a call. So the workers
are called every few seconds at most, and never while the server is idle and holds nothing new.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from vllm.v1.engine.exceptions import EngineDeadError

from service.metrics import HELD, REQUESTS

EVERY_SECONDS = 5.0


async def watch(engine: Any, every_seconds: float = EVERY_SECONDS) -> None:
    """Update the metric from the workers until the engine has died."""
    answered: float | None = None
    while True:
        await asyncio.sleep(every_seconds)
        ended = _ended_requests()
        if ended == answered and not engine.output_processor.request_states:
            continue
        try:
            set_metric(await engine.collective_rpc("sensefield_held", None, ()))
        except EngineDeadError:  # the server ends
            return
        answered = None if engine.output_processor.request_states else ended


def _ended_requests() -> float:
    """Return the number of ended requests in this process, of routes with control."""
    return sum(
        sample.value
        for family in REQUESTS.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    )


def set_metric(answers: Iterable[Mapping[str, int]]) -> None:
    """Set the metric to the greatest value of any worker."""
    most: dict[str, int] = {}
    for answer in answers:
        for what, count in answer.items():
            most[what] = max(count, most.get(what, 0))
    for what, count in most.items():
        HELD.labels(what).set(count)
