"""The page and the JSON of a benchmark on a GPU: a row for each case, a column for each model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from loadtests.cases.gpu_models import Model
from loadtests.measure.results import Result
from loadtests.report.pages import described, latency_table, machine_line, markdown_table


@dataclass
class Outcome:
    """The results of a model, and the reasons for missing ones."""

    model: Model
    planned: Mapping[str, str]
    """Titles of the cases by name."""
    results: dict[str, Result] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    reason: str = ""
    """Why the run ended before all that was planned."""

    @property
    def skipped(self) -> dict[str, str]:
        """Why each case has no result."""
        missing = [name for name in self.planned if name not in self.results]
        return {name: self.failures.get(name, f"skipped: {self.reason}") for name in missing}

    def cell(self, name: str) -> str:
        """Return a case's cell of the table."""
        if name not in self.results:
            return self.skipped[name]
        result = self.results[name]
        show = result.goal.show
        low, high = map(show, result.spread)
        text = f"{show(result.median)} ({low} to {high})"
        if result.stock_failed:
            return f"{text}, stock fails"
        stock = result.stock_median
        return text if stock is None else f"{text}, stock {show(stock)}"


def cases_table(outcomes: Sequence[Outcome], device: str) -> str:
    """Return the table; its first cell names the device."""
    goals = {name: str(r.goal) for outcome in outcomes for name, r in outcome.results.items()}
    rows = [
        (title, goals.get(name, ""), *(outcome.cell(name) for outcome in outcomes))
        for name, title in outcomes[0].planned.items()
    ]
    header = (f"case, on {device}", "goal", *(outcome.model.title for outcome in outcomes))
    return markdown_table(header, rows)


def gpu_markdown(
    outcomes: Sequence[Outcome],
    kernels: str,
    settings: Mapping[str, Any],
    machine: Mapping[str, Any],
) -> str:
    """Return the page, the table of all cases last."""
    latencies = "".join(
        f"{outcome.model.title}:\n\n{table}\n"
        for outcome in outcomes
        if (table := latency_table(list(outcome.results.values())))
    )
    return (
        f"{machine_line(machine, ' and '.join(o.model.name for o in outcomes))}.\n\n"
        f"`{settings['command']}`, engine flags `{settings['engine_flags']}`.\n\n"
        f"Kernels alone, rows of logits in float32, beside what memory bandwidth allows "
        f"(docs/kernels.md):\n\n```text\n{kernels}\n```\n\n"
        f"Latencies, bytes and memory, with the feature / without it, medians of the rounds.\n\n"
        f"{latencies}"
        f"Throughput over HTTP with a feature divided by that without it, on the same server in "
        f"turns: median (smallest to largest) of {settings['rounds']} rounds. In the first row "
        f"control and residual steering are there and idle, and the divisor is stock vLLM. Stock "
        f"vLLM's figures elsewhere are of its own `logprobs` of the same width, one stage.\n\n"
        f"{cases_table(outcomes, device_name(machine))}"
    )


def device_name(machine: Mapping[str, Any]) -> str:
    """Return the GPU's name, or the processor's where there is none."""
    return ", ".join(machine["accelerators"]) or str(machine["cpu"])


def gpu_json(
    outcomes: Sequence[Outcome],
    kernels: str,
    settings: Mapping[str, Any],
    machine: Mapping[str, Any],
) -> str:
    """Return everything, each round included."""
    models = [
        {
            "model": outcome.model.name,
            "dummy_weights": outcome.model.dummy,
            "results": described(list(outcome.results.values())),
            "skipped": outcome.skipped,
        }
        for outcome in outcomes
    ]
    content = {"machine": machine, "settings": settings, "kernels": kernels, "models": models}
    return json.dumps(content, indent=1) + "\n"
