"""The time of a start, part by part."""

from __future__ import annotations

import re

import psutil
import pytest

from service import startup


@pytest.fixture(autouse=True)
def nothing_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "_passed", {})


def test_the_parts_add_up_to_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    born = psutil.Process().create_time()
    for part, age in (("imports", 8.0), ("engine", 20.5), ("service", 21.0)):
        monkeypatch.setattr("service.startup.time.time", lambda age=age: born + age)
        startup.passed(part)
    assert startup.summary() == ("ready after 21.0 s: imports 8.0 s, engine 12.5 s, service 0.5 s")


def test_time_counts_from_the_beginning_of_the_process() -> None:
    startup.passed("imports")
    found = re.fullmatch(r"ready after ([\d.]+) s: imports \1 s", startup.summary() or "")
    assert found is not None
    assert 0 < float(found[1]) < 3600


def test_a_process_that_noted_nothing_says_nothing() -> None:
    assert startup.summary() is None
