"""Self times out of a trace, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from loadtests.cases.throughput import throughput_cases
from loadtests.op_profile import CASES, added, per_token, section, self_times


def op(name: str, begin: float, end: float, thread: int = 1) -> dict[str, Any]:
    return {
        **{"ph": "X", "cat": "cpu_op", "name": name},
        **{"ts": begin, "dur": end - begin, "tid": thread},
    }


def test_an_operation_does_not_take_what_it_calls() -> None:
    events = [
        *(op("linear", 0, 10), op("t", 0, 2), op("addmm", 2, 9), op("copy", 3, 5)),
        *(op("linear", 10, 14), op("copy", 20, 21)),
        op("copy", 1, 4, thread=2),
        {"ph": "X", "cat": "user_annotation", "name": "step", "ts": 0, "dur": 30, "tid": 1},
        {"ph": "M", "name": "process_name"},
    ]
    times = self_times(events)
    assert times == {"linear": 1 + 4, "t": 2, "addmm": 5, "copy": 2 + 1 + 3}
    assert self_times(reversed(events)) == times
    # Each thread's time is told once.
    assert sum(times.values()) == 10 + 4 + 1 + 3


def test_what_is_added_comes_with_the_most_first() -> None:
    feature, baseline = per_token({"exp": 30.0, "mm": 100.0}, 10), {"mm": 11.0, "copy": 0.5}
    assert added(feature, baseline) == [("exp", 3.0), ("copy", -0.5), ("mm", -1.0)]


def test_a_section_ends_with_the_sum() -> None:
    case = next(case for case in throughput_cases(8) if case.name == "top20")
    lines = section(case, {"exp": 3.0, "mm": 10.0}, {"mm": 11.0}).splitlines()
    assert lines[0] == "## top-20, both stages"
    assert [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[4:]] == [
        ["`exp`", "3.0", "+3.0"],
        ["`mm`", "10.0", "-1.0"],
        ["all operations", "13.0", "+2.0"],
    ]


@pytest.mark.parametrize("name", CASES)
def test_its_cases_are_those_of_the_benchmark(name: str) -> None:
    assert name in {case.name for case in throughput_cases(8)}
