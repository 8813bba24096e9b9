"""The line chart of the sweeps: rates and latencies over streams, ratios over configurations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from loadtests.cases.sweeps import CONTROL_AT, LINES, Line
from loadtests.measure.results import Result

_COLOURS = ("#1f6f8b", "#e3b23c", "#c8553d")
_PANELS = {
    "tokens a second": ("tokens_per_second", 1),
    "time to first token, ms (median)": ("ttft_p50_seconds", 1000),
    "time between tokens, ms (p99)": ("itl_p99_seconds", 1000),
}
"""Title of a panel, and the value of a described run in it, with its scale."""


def curve(results: Sequence[Result], line: Line, value: str) -> dict[int, float]:
    """Return the median over the rounds of a value at each size that was measured."""
    by_name = {result.name: result for result in results}
    found = {}
    for size, name in line.cases.items():
        if name in by_name:
            runs = [one[line.side] for one in by_name[name].raw["sensefield"]]
            values = [run[value] for run in runs if run[value] is not None]
            if values:
                found[size] = median(values)
    return found


def draw_sweeps(results: Sequence[Result], caption: str, file: Path) -> None:
    """Write a PNG of the sweeps among the results; none of results that hold no sweep."""
    curves = {
        title: {
            line.label: {size: at * scale for size, at in curve(results, line, value).items()}
            for line in LINES
        }
        for title, (value, scale) in _PANELS.items()
    }
    panels = {title: lines for title, lines in curves.items() if any(lines.values())}
    by_name = {result.name: result for result in results}
    ratios = {size: by_name[name].median for size, name in CONTROL_AT.items() if name in by_name}
    if len(ratios) > 1:
        title = "throughput with control / without, by configurations in a batch"
        panels[title] = {"own bias, suppress and steer": ratios}
    if panels:
        _draw(panels, caption, file)


def _draw(
    panels: Mapping[str, Mapping[str, Mapping[int, float]]], caption: str, file: Path
) -> None:
    import matplotlib

    matplotlib.use("Agg")  # draws into a file: there may be no display
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        len(panels), figsize=(9, 0.6 + 3 * len(panels)), squeeze=False, layout="constrained"
    )
    for axis, (title, lines) in zip(axes[:, 0], panels.items(), strict=True):
        _draw_panel(axis, title, lines)
    figure.supxlabel(caption, fontsize=7, color="#555", wrap=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=130)
    pyplot.close(figure)
    print(f"wrote {file}")


def _draw_panel(axis: Any, title: str, lines: Mapping[str, Mapping[int, float]]) -> None:
    for (label, points), colour in zip(lines.items(), _COLOURS, strict=False):
        axis.plot(list(points), list(points.values()), "o-", color=colour, label=label)
    sizes = sorted({size for points in lines.values() for size in points})
    axis.set_xscale("log", base=2)
    axis.set_xticks(sizes, list(map(str, sizes)))
    axis.set_xlabel("requests at once", fontsize=9)
    axis.set_ylim(bottom=0)
    axis.set_title(title, loc="left", fontsize=11)
    axis.grid(alpha=0.3)
    axis.legend(loc="upper left", frameon=False, fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
