"""The chart of a load test is drawn, also of steps that have no latencies."""

from __future__ import annotations

from pathlib import Path

from loadtests.load.capacity import Step
from loadtests.load.objectives import Objectives
from loadtests.report.capacity_chart import draw_capacity


def test_the_chart_is_a_png(tmp_path: Path) -> None:
    objectives = Objectives(ttft_seconds=0.5, itl_seconds=0.1, error_share=0.1)
    groups = {
        "plain": [Step(1, 3, 20.0, 0.2, 0.05, []), Step(2, 4, 32.0, 0.6, 0.05, ["p99 TTFT"])],
        "control": [Step(1, 1, 0.0, None, None, ["errors"])],
    }
    file = tmp_path / "new" / "loadtest.png"
    draw_capacity(groups, objectives, "a caption", file)
    assert file.read_bytes().startswith(b"\x89PNG")
