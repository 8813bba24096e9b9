"""The page of a load test: each group's capacity, and all that was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loadtests.load.capacity import Step, capacity
from loadtests.load.objectives import Objectives
from loadtests.report.pages import machine_line, markdown_table


def capacity_markdown(
    groups: Mapping[str, Sequence[Step]],
    objectives: Objectives,
    settings: Mapping[str, Any],
    machine: Mapping[str, Any],
) -> str:
    """Return the page: each group's capacity, then all that was measured."""
    best = [(name, *_capacity_cells(found)) for name, found in groups.items()]
    every = [(name, *_cells(step)) for name, found in groups.items() for step in found]
    header = ("group", "users", "requests", "tokens/s", "p99 TTFT, ms", "p99 ITL, ms")
    return (
        f"{machine_line(machine, settings['model'])}.\n\n"
        f"Users who each stream one chat of {settings['tokens']} tokens after another, "
        f"{settings['seconds'] / len(groups):.0f} s a group ({settings['shape']}). Objectives: "
        f"p99 of times to first token ≤ {objectives.ttft_seconds * 1e3:.0f} ms, p99 of times "
        f"between tokens ≤ {objectives.itl_seconds * 1e3:.0f} ms, errors ≤ "
        f"{objectives.error_share:.1%}. The largest rate at which they are kept (≥: with as many "
        f"users as were tried):\n\n"
        f"{markdown_table(header, best)}\n"
        f"All numbers of users:\n\n"
        f"{markdown_table((*header, 'objectives'), every)}\n"
        f"`{settings['command']}`\n"
    )


def _capacity_cells(found: Sequence[Step]) -> tuple[str, ...]:
    best = capacity(found)
    users, requests, rate, *latencies, _ = _cells(best)
    is_last = best is not None and best == found[-1]
    return (users, requests, f"≥ {rate}" if is_last else rate, *latencies)


def _cells(step: Step | None) -> tuple[str, ...]:
    if step is None:
        return ("none",) + ("",) * 5
    return (
        str(step.users),
        str(step.requests),
        f"{step.tokens_per_second:.1f}",
        _milliseconds(step.ttft_p99),
        _milliseconds(step.itl_p99),
        ", ".join(step.missed) or "met",
    )


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1e3:.0f}"
