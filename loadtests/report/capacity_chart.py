"""The chart of a load test: each latency over the rate, beside its objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from loadtests.load.capacity import Step
from loadtests.load.objectives import Objectives

_COLOURS = ("#1f6f8b", "#e3b23c", "#c8553d")


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
