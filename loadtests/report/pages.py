"""The Markdown and JSON of a benchmark."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from loadtests.measure.results import Result

_HEADER = ("case", "goal", "median", "min to max", "stock vLLM", "")
_Columns = Mapping[str, Callable[[Mapping[str, Any]], float | None]]
_LATENCY: _Columns = {
    "TTFT, ms": lambda run: _milli(run["ttft_p50_seconds"]),
    "ITL p50, ms": lambda run: _milli(run["itl_p50_seconds"]),
    "ITL p99, ms": lambda run: _milli(run["itl_p99_seconds"]),
    "bytes a token": lambda run: float(run["bytes_per_token"]),
    "RSS, MiB": lambda run: sum(run["resident_bytes"].values()) / 2**20,
}
"""Columns of the second table, of a described run."""
_PROCESSES = ("API server", "EngineCore", "Worker")
"""Columns of the third."""


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose columns line up in plain text too."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * max(width, 3) for width in widths], *rows]
    return "".join(
        "| " + " | ".join(f"{cell:{w}}" for cell, w in zip(line, widths, strict=True)) + " |\n"
        for line in lines
    )


def results_table(results: Sequence[Result]) -> str:
    """Return a row for each result."""
    rows = []
    for result in results:
        show = result.goal.show
        rows.append(
            (
                result.title,
                str(result.goal),
                show(result.median),
                " to ".join(map(show, result.spread)),
                _stock_cell(result),
                "met" if result.is_met else "missed",
            )
        )
    return markdown_table(_HEADER, rows)


def _stock_cell(result: Result) -> str:
    if result.stock_failed:
        return "fails"
    return "" if result.stock_median is None else result.goal.show(result.stock_median)


def latency_table(results: Sequence[Result]) -> str:
    """Return a row for each case of rounds: feature / baseline, the medians of the rounds."""
    return _table_of_runs(results, _LATENCY)


def processor_table(results: Sequence[Result]) -> str:
    """Return the same of the processor time of each process, milliseconds a token."""
    columns = {name: partial(_processor_ms, process=name) for name in _PROCESSES}
    return _table_of_runs(results, columns)


def _table_of_runs(results: Sequence[Result], columns: _Columns) -> str:
    rows = []
    for result in results:
        if rounds := result.raw.get("sensefield"):
            sides = [[one[side] for one in rounds] for side in ("feature", "baseline")]
            cells = (
                " / ".join(_middle(map(of, runs)) for runs in sides) for of in columns.values()
            )
            rows.append((result.title, *cells))
    return markdown_table(("feature / baseline", *columns), rows) if rows else ""


def _processor_ms(run: Mapping[str, Any], process: str) -> float | None:
    used = run["processor_seconds"].get(process)
    return None if used is None else used * 1000 / run["tokens"]


def _middle(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    middle = median(known)
    return f"{middle:.{0 if middle >= 100 else 1 if middle >= 1 else 3}f}"


def _milli(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000


def machine_line(machine: Mapping[str, Any], model: str) -> str:
    """Return one line that says what ran where."""
    hardware = ", ".join(
        [f"{machine['cores']} cores of {machine['cpu']}", *machine["accelerators"]]
    )
    return (
        f"{model} on {hardware}, {machine['memory_gib']} GiB; vLLM {machine['vllm']}, "
        f"torch {machine['torch']}, Python {machine['python']}; {machine['date'][:10]}"
    )


def benchmark_markdown(
    results: Sequence[Result], settings: Mapping[str, Any], machine: Mapping[str, Any]
) -> str:
    """Return the page: what was measured, how, and the table."""
    failed = any(result.stock_failed for result in results)
    fails = " It fails where its server ended the request, or itself, with an error." * failed
    return (
        f"{machine_line(machine, settings['model'])}.\n\n"
        f"A number without a unit is a throughput over HTTP divided by the one without the "
        f"feature, on the same server, measured in turns: the median of {settings['rounds']} "
        f"rounds. Stock vLLM's column is its own OpenAI `logprobs` of the same width, one stage, "
        f"divided in the same way.{fails}\n\n"
        f"{results_table(results)}\n"
        f"{_latency_page(results)}"
        f"`{settings['command']}`\n"
    )


def _latency_page(results: Sequence[Result]) -> str:
    if not (table := latency_table(results)):
        return ""
    return (
        "Medians of the same runs, with the feature / without it: time to first token (all "
        "requests are sent at once), time between tokens, bytes received, and what the processes "
        f"of the server hold in memory afterwards.\n\n{table}\n"
        "Processor time of the same runs, milliseconds a token. EngineCore polls for its worker "
        f"and uses what is left of a core.\n\n{processor_table(results)}\n"
    )


def benchmark_json(
    results: Sequence[Result], settings: Mapping[str, Any], machine: Mapping[str, Any]
) -> str:
    """Return everything, each round included."""
    content = {"machine": machine, "settings": settings, "results": described(results)}
    return json.dumps(content, indent=1) + "\n"


def described(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return results with what was made of their values, for JSON."""
    return [
        asdict(result)
        | {"median": result.median, "stock_median": result.stock_median, "met": result.is_met}
        for result in results
    ]


def write(folder: Path, name: str, text: str) -> None:
    """Write one file of the report and say so."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    print(f"wrote {folder / name}")
