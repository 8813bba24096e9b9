"""What a sweep's chart shows, and that it is drawn of nothing else."""

from pathlib import Path
from typing import Any

import pytest

from loadtests.cases.sweeps import CONTROL_AT, LINES
from loadtests.measure.results import Result, at_least
from loadtests.report.sweep_chart import curve, draw_sweeps


def result(name: str, *rates: float) -> Result:
    def side(rate: float) -> dict[str, Any]:
        times = {"ttft_p50_seconds": 1 / rate, "itl_p99_seconds": None}
        return {"tokens_per_second": rate, **times}

    rounds = [{"feature": side(rate), "baseline": side(rate / 2)} for rate in rates]
    return Result(name, name, at_least(1), rates, raw={"sensefield": rounds})


SWEPT = [
    result("plain-1", 10.0, 30.0, 40.0),
    result("plain-8", 80.0),
    result("top1000-both-8", 7.0),
]
OTHER = [result("plain", 50.0), Result("stall", "stall", at_least(1), [1.0])]


@pytest.mark.parametrize(
    ("line", "points"), [(0, {1: 30.0, 8: 80.0}), (1, {1: 15.0, 8: 40.0}), (2, {8: 7.0})]
)
def test_a_curve_is_medians_by_size(line: int, points: dict[int, float]) -> None:
    assert curve([*SWEPT, *OTHER], LINES[line], "tokens_per_second") == points


def test_what_was_not_measured_is_no_point() -> None:
    assert curve(SWEPT, LINES[0], "itl_p99_seconds") == {}


@pytest.mark.parametrize(
    "results", [SWEPT, [*OTHER, *(result(name, 1.0) for name in CONTROL_AT.values())]]
)
def test_the_chart_is_a_png(tmp_path: Path, results: list[Result]) -> None:
    file = tmp_path / "new" / "sweep.png"
    draw_sweeps(results, "a caption", file)
    assert file.read_bytes().startswith(b"\x89PNG")


def test_without_a_sweep_there_is_no_chart(tmp_path: Path) -> None:
    draw_sweeps([*OTHER, result("control", 1.0)], "a caption", tmp_path / "sweep.png")
    assert list(tmp_path.iterdir()) == []
