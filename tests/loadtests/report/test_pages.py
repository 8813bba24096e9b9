"""The Markdown, JSON and chart of a benchmark."""

import json
from pathlib import Path
from typing import Any

import pytest

from loadtests.measure.machine import describe_command, describe_machine
from loadtests.measure.results import MICROSECONDS, SECONDS, Result, at_least, at_most
from loadtests.report.chart import draw
from loadtests.report.pages import (
    benchmark_json,
    benchmark_markdown,
    latency_table,
    markdown_table,
    processor_table,
    results_table,
)
from tests.loadtests.pages import MACHINE, cells

SETTINGS = {"model": "some-model", "rounds": 3, "command": "python -m loadtests.bench"}
RESULTS = [
    Result("top20", "top-20", at_least(0.97), [0.98, 0.99, 0.96], [0.8], raw={"stock": [1]}),
    Result("encode", "encode a row", at_most(5, MICROSECONDS), [7.0]),
    Result("stall", "first request", at_most(0.1, SECONDS), [0.01], stock_failed=True),
]


def test_a_table_lines_up_as_plain_text() -> None:
    lines = markdown_table(("a", "long header"), [("wide cell", "b")]).splitlines()
    assert [len(line) for line in lines] == [len(lines[0])] * 3
    assert [cells(line) for line in lines] == [
        ["a", "long header"],
        ["---------", "-----------"],
        ["wide cell", "b"],
    ]


def test_the_table_holds_goal_median_spread_and_stock() -> None:
    rows = [cells(line) for line in results_table(RESULTS).splitlines()[2:]]
    assert rows == [
        ["top-20", "≥ 0.97", "0.980", "0.960 to 0.990", "0.800", "met"],
        ["encode a row", "≤ 5 us", "7.0 us", "7.0 us to 7.0 us", "", "missed"],
        ["first request", "≤ 0.1 s", "0.010 s", "0.010 s to 0.010 s", "fails", "met"],
    ]


def test_the_page_says_what_ran_where_and_how() -> None:
    page = benchmark_markdown(RESULTS, SETTINGS, MACHINE)
    assert page.startswith("some-model on 2 cores of Some CPU, 23.5 GiB; vLLM 0.32.0")
    assert "2026-01-02." in page
    assert "median of 3 rounds" in page
    assert "It fails where" in page
    assert results_table(RESULTS) in page
    assert page.endswith("`python -m loadtests.bench`\n")


def test_the_other_tables_hold_medians_of_feature_and_baseline() -> None:
    def side(scale: float) -> dict[str, Any]:
        return {
            "ttft_p50_seconds": 0.04 * scale,
            "itl_p50_seconds": 0.01 * scale,
            "itl_p99_seconds": None,
            "bytes_per_token": 250.0 * scale,
            "resident_bytes": {"API server": 2**20, "EngineCore": 3 * 2**20},
            "tokens": 200,
            "processor_seconds": {"API server": 0.05 * scale, "Worker": 2.0 * scale},
        }

    rounds = [{"feature": side(2 * drift), "baseline": side(drift)} for drift in (1, 1.5, 4)]
    timed = Result("top20", "top-20", at_least(0.97), [0.98], raw={"sensefield": rounds})
    header, _, row = map(cells, latency_table([*RESULTS, timed]).splitlines())
    assert header[0] == "feature / baseline"
    assert dict(zip(header[1:], row[1:], strict=True)) == {
        "TTFT, ms": "120 / 60.0",
        "ITL p50, ms": "30.0 / 15.0",
        "ITL p99, ms": "- / -",
        "bytes a token": "750 / 375",
        "RSS, MiB": "4.0 / 4.0",
    }
    _, _, row = map(cells, processor_table([timed]).splitlines())
    assert row == ["top-20", "0.750 / 0.375", "- / -", "30.0 / 15.0"]
    page = benchmark_markdown([timed], SETTINGS, MACHINE)
    assert latency_table([timed]) in page
    assert processor_table([timed]) in page
    assert latency_table(RESULTS) == ""


def test_a_failure_is_explained_only_where_there_is_one() -> None:
    assert "It fails where" not in benchmark_markdown(RESULTS[:2], SETTINGS, MACHINE)


def test_the_json_holds_every_round_and_what_was_made_of_them() -> None:
    content = json.loads(benchmark_json(RESULTS, SETTINGS, MACHINE))
    assert content["machine"] == MACHINE
    assert content["settings"] == SETTINGS
    first = content["results"][0]
    assert first["measured"] == [0.98, 0.99, 0.96]
    assert first["raw"] == {"stock": [1]}
    assert (first["median"], first["stock_median"], first["met"]) == (0.98, 0.8, True)


@pytest.mark.parametrize("count", [1, 3])
def test_the_chart_is_a_png(tmp_path: Path, count: int) -> None:
    file = tmp_path / "new" / "bench.png"
    draw(RESULTS[:count], "a caption", file)
    assert file.read_bytes().startswith(b"\x89PNG")


def test_a_command_shows_names_of_folders_and_not_where_they_are() -> None:
    given = ["--model", "/some/where/model", "--out=/some/where/else", "--rounds", "3"]
    shown = describe_command(given)
    assert shown == "python -m loadtests.bench --model model --out=else --rounds 3"


def test_the_machine_is_described_with_all_that_a_page_needs() -> None:
    assert describe_machine().keys() >= MACHINE.keys()
