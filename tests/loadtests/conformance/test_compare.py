"""Which tests differ between two servers, and which of those are explained."""

from __future__ import annotations

import json
from pathlib import Path

from loadtests.conformance.compare import Ended, judged, known_differences, read_results

STOCK = {"a": Ended("passed"), "b": Ended("failed"), "c": Ended("passed")}
OURS = {"a": Ended("passed"), "b": Ended("failed", "no model"), "c": Ended("failed", "why")}


def test_what_fails_on_both_is_no_difference() -> None:
    text, agreed = judged(STOCK, {**OURS, "c": Ended("passed")}, {})
    assert agreed
    assert text == "stock vLLM: 2 passed, 1 failed\nSensefield: 2 passed, 1 failed"


def test_a_difference_needs_a_reason() -> None:
    text, agreed = judged(STOCK, OURS, {})
    assert not agreed
    assert "NEW: c: stock passed, Sensefield failed\n     why" in text
    text, agreed = judged(STOCK, OURS, {"c": "the message names the field"})
    assert agreed
    assert "known: c: the message names the field" in text


def test_a_test_that_one_server_did_not_come_to_is_a_difference() -> None:
    assert not judged(STOCK, {"a": Ended("passed")}, {})[1]


def test_a_reason_without_a_difference_is_taken_out() -> None:
    text, agreed = judged(STOCK, STOCK, {"a": "an old reason"})
    assert not agreed
    assert "GONE: a" in text


def test_a_failure_in_a_teardown_counts(tmp_path: Path) -> None:
    file = tmp_path / "results"
    parts = [("a", "passed", ""), ("a", "failed", "teardown"), ("b", "passed", "")]
    lines = [json.dumps(dict(zip(("test", "outcome", "why"), part, strict=True))) for part in parts]
    file.write_text("\n".join(lines))
    assert read_results(file) == {"a": Ended("failed", "teardown"), "b": Ended("passed")}


def test_each_known_difference_has_a_reason() -> None:
    assert all(known_differences().values())
