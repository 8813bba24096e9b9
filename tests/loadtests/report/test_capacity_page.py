"""What the page of a load test says of each group."""

from __future__ import annotations

from loadtests.load.capacity import Step
from loadtests.load.objectives import Objectives
from loadtests.report.capacity_page import capacity_markdown
from tests.loadtests.pages import MACHINE, cells

OBJECTIVES = Objectives(ttft_seconds=0.5, itl_seconds=0.1, error_share=0.1)
SETTINGS = {"command": "run", "model": "m", "shape": "ramp", "seconds": 60, "tokens": 20}
KEPT = [Step(1, 3, 20.0, 0.2, 0.05, []), Step(2, 4, 32.0, 0.2, 0.05, [])]
MISSED = Step(4, 5, 40.0, 0.6, 0.05, ["p99 TTFT 600 > 500 ms"])
FAILED = Step(1, 1, 0.0, None, None, ["errors 100.0% > 10.0%"])


def test_the_page_holds_capacity_and_every_step() -> None:
    groups = {"plain": [*KEPT, MISSED], "control": [FAILED], "calm": KEPT}
    page = capacity_markdown(groups, OBJECTIVES, SETTINGS, MACHINE)
    rows = [cells(line) for line in page.splitlines() if line.startswith("|")]
    assert ["plain", "2", "4", "32.0", "200", "50"] in rows
    assert ["control", "none", "", "", "", ""] in rows
    assert ["calm", "2", "4", "≥ 32.0", "200", "50"] in rows
    assert ["plain", "2", "4", "32.0", "200", "50", "met"] in rows
    assert ["plain", "4", "5", "40.0", "600", "50", "p99 TTFT 600 > 500 ms"] in rows
    assert ["control", "1", "1", "0.0", "", "", "errors 100.0% > 10.0%"] in rows
    assert "20 s a group (ramp)" in page
