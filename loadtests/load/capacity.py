"""How much a server can serve while it keeps its objectives, from the samples of a ramp."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.load.objectives import Objectives, Sample
from loadtests.measure.latency import percentile
from loadtests.report.pages import machine_line, markdown_table

_COLOURS = ("#1f6f8b", "#e3b23c", "#c8553d")


@dataclass(frozen=True)
class Step:
    """What so many users saw."""

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


def draw_capacity(
    groups: Mapping[str, Sequence[Step]], objectives: Objectives, caption: str, file: Path
) -> None:
    """Write a PNG: each latency over the rate, a point for each number of users."""
    import matplotlib

    matplotlib.use("Agg")  # draws into a file: there may be no display
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, figsize=(9, 7), layout="constrained", sharex=True)
    for axis, title, name, limit in (
        (axes[0], "p99 of times to first token, ms", "ttft_p99", objectives.ttft_seconds),
        (axes[1], "p99 of times between tokens, ms", "itl_p99", objectives.itl_seconds),
    ):
        for (group, found), colour in zip(groups.items(), _COLOURS, strict=False):
            points = [step for step in found if getattr(step, name) is not None]
            rates = [step.tokens_per_second for step in points]
            values = [getattr(step, name) * 1e3 for step in points]
            axis.plot(rates, values, "o-", color=colour, label=group)
            for step, rate, value in zip(points, rates, values, strict=True):
                axis.annotate(
                    str(step.users),
                    (rate, value),
                    fontsize=7,
                    xytext=(3, 3),
                    textcoords="offset points",
                )
        axis.axhline(limit * 1e3, color="#9aa5b1", linestyle="--", label="objective")
        axis.set_title(title, loc="left", fontsize=11)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        axis.legend(loc="upper left", frameon=False, fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[1].set_xlabel("tokens a second (a point's number: users)")
    figure.supxlabel(caption, fontsize=7, color="#555", wrap=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=130)
    pyplot.close(figure)
    print(f"wrote {file}")
