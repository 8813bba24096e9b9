"""The bar chart of a benchmark."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadtests.measure.results import MICROSECONDS, RATIO, SECONDS, Result

_MEASURED, _MISSED, _GOAL, _STOCK = "#1f6f8b", "#c8553d", "#9aa5b1", "#e3b23c"
_HEIGHT = 0.27
_LABEL_WIDTH = 34
_HEADINGS = {
    RATIO: "throughput, 1 = without the feature (longer is better)",
    MICROSECONDS: "microseconds (shorter is better)",
    SECONDS: "seconds (shorter is better)",
}


def draw(results: Sequence[Result], caption: str, file: Path) -> None:
    """Write a PNG with a panel for each unit: measured, goal and stock vLLM beside each other."""
    import matplotlib

    matplotlib.use("Agg")  # draws into a file: there may be no display
    from matplotlib import pyplot
    from matplotlib.patches import Patch

    panels = {unit: [r for r in results if r.goal.unit == unit] for unit in _HEADINGS}
    panels = {unit: rows for unit, rows in panels.items() if rows}
    heights = [len(rows) + 0.8 for rows in panels.values()]
    figure, axes = pyplot.subplots(
        len(panels),
        figsize=(11, 1.6 + 0.8 * sum(heights)),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for axis, (unit, rows) in zip(axes[:, 0], panels.items(), strict=True):
        _draw_panel(axis, rows)
        axis.set_title(_HEADINGS[unit], loc="left", fontsize=11)
    handles = [Patch(color=c) for c in (_MEASURED, _MISSED, _GOAL, _STOCK)]
    names = ("Sensefield, goal met", "Sensefield, goal missed", "goal", "stock vLLM")
    figure.legend(handles, names, loc="outside upper center", ncols=4, frameon=False)
    figure.supxlabel("\n".join(textwrap.wrap(caption, 130)), fontsize=8, color="#555")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=130)
    pyplot.close(figure)
    print(f"wrote {file}")


def _draw_panel(axis: Any, rows: Sequence[Result]) -> None:
    longest = max(max(bar for bar, _, _ in _bars(row)) for row in rows)
    for at, row in enumerate(rows):
        for place, (value, colour, label) in enumerate(_bars(row)):
            y = at + (place - 1) * _HEIGHT
            axis.barh(y, value, _HEIGHT * 0.9, color=colour)
            end = value
            if place == 0:
                low, high = row.spread
                axis.plot([low, high], [y, y], color="black", linewidth=1.2, marker="|")
                end = max(value, high)
            axis.text(max(end, 0) + longest * 0.012, y, label, va="center", fontsize=8)
    names = [textwrap.fill(row.title, _LABEL_WIDTH) for row in rows]
    axis.set_yticks(range(len(rows)), names, fontsize=9)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xlim(right=longest * 1.15)
    axis.spines[["top", "right"]].set_visible(False)


def _bars(row: Result) -> list[tuple[float, str, str]]:
    """Return length, colour and label of a result's bars, from the top down."""
    goal = row.goal
    colour = _MEASURED if row.is_met else _MISSED
    bars = [
        (row.median, colour, goal.show(row.median)),
        (goal.limit, _GOAL, f"goal {goal}"),
    ]
    if row.stock_median is not None:
        bars.append((row.stock_median, _STOCK, f"stock {goal.show(row.stock_median)}"))
    return bars
