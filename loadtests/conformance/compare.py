"""The differences between two runs of the same tests, and the reasons for those that are known."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

PASSED = "passed"
KNOWN = Path(__file__).parent / "differences.toml"


@dataclass(frozen=True)
class Ended:
    """The outcome of a test; a failure in its setup or teardown counts too."""

    outcome: str
    why: str = ""


Results = dict[str, Ended]


def read_results(file: Path) -> Results:
    """Return the results that the plugin wrote; the worst of each test's parts counts."""
    found: Results = {}
    for line in file.read_text().splitlines():
        part = json.loads(line)
        if part["test"] not in found or found[part["test"]].outcome == PASSED:
            found[part["test"]] = Ended(part["outcome"], part["why"])
    return found


def known_differences() -> dict[str, str]:
    """Return the reasons for known differences, by test."""
    listed = tomllib.loads(KNOWN.read_text()).get("difference", [])
    return {entry["test"]: entry["reason"] for entry in listed}


def differences(stock: Results, sensefield: Results) -> dict[str, tuple[Ended, Ended]]:
    """Return the tests that passed on one server alone, with what became of them on each."""
    absent = Ended("absent")
    pairs = {
        test: (stock.get(test, absent), sensefield.get(test, absent))
        for test in {**stock, **sensefield}
    }
    return {
        test: (ours, theirs)
        for test, (ours, theirs) in pairs.items()
        if (ours.outcome == PASSED) != (theirs.outcome == PASSED)
    }


def judged(stock: Results, sensefield: Results, known: dict[str, str]) -> tuple[str, bool]:
    """Return a text about both runs, and whether each difference is known and each known is one."""
    found = differences(stock, sensefield)
    lines = [
        f"{name}: {', '.join(f'{count} {outcome}' for outcome, count in counted.most_common())}"
        for name, counted in (
            ("stock vLLM", Counter(each.outcome for each in stock.values())),
            ("Sensefield", Counter(each.outcome for each in sensefield.values())),
        )
    ]
    for test in sorted(found.keys() & known.keys()):
        lines.append(f"known: {test}: {known[test]}")
    for test in sorted(found.keys() - known.keys()):
        ours, theirs = found[test]
        lines.append(
            f"NEW: {test}: stock {ours.outcome}, Sensefield {theirs.outcome}\n"
            f"     {ours.why or theirs.why}"
        )
    for test in sorted(known.keys() - found.keys()):
        lines.append(f"GONE: {test} differs no more: take it out of {KNOWN.name}")
    return "\n".join(lines), found.keys() == known.keys()
