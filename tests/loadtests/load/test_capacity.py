"""Objectives, and the largest rate that keeps them."""

from __future__ import annotations

import pytest

from loadtests.load.capacity import capacity, steps
from loadtests.load.objectives import Objectives, Sample

OBJECTIVES = Objectives(ttft_seconds=0.5, itl_seconds=0.1, error_share=0.1)


def sample(users: int, seconds: float = 1.0, ttft: float = 0.2, itl: float = 0.05) -> Sample:
    return Sample("plain", "plain", users, seconds, 20, ttft, (itl,) * 19)


def failed(users: int) -> Sample:
    return Sample("plain", "plain", users, 1.0, error="HTTP 503")


RAMP = [
    *[sample(1)] * 3,
    *[sample(2, seconds=1.25)] * 4,
    sample(0, ttft=9.0),
    *[sample(4, seconds=2.0, ttft=0.6)] * 5,
]


@pytest.mark.parametrize(
    ("samples", "missed"),
    [
        ([sample(1)], []),
        ([], ["no request ended"]),
        ([sample(1, ttft=0.7)], ["p99 TTFT 700 > 500 ms"]),
        ([sample(1, itl=0.25)], ["p99 ITL 250 > 100 ms"]),
        ([sample(1)] * 9 + [failed(1)], []),
        ([sample(1)] * 8 + [failed(1)] * 2, ["errors 20.0% > 10.0%"]),
        ([failed(1)], ["errors 100.0% > 10.0%"]),
    ],
)
def test_objectives_say_what_they_miss(samples: list[Sample], missed: list[str]) -> None:
    assert OBJECTIVES.missed(samples) == missed


def test_the_rate_is_the_users_times_the_tokens_of_their_seconds() -> None:
    one, two, four = steps(RAMP, OBJECTIVES)
    assert [step.users for step in (one, two, four)] == [1, 2, 4]
    assert one.tokens_per_second == pytest.approx(20)
    assert two.tokens_per_second == pytest.approx(2 * 20 / 1.25)
    assert four.tokens_per_second == pytest.approx(4 * 20 / 2)
    assert two.requests == 4
    assert two.ttft_p99 == pytest.approx(0.2)


def test_the_capacity_is_the_largest_rate_that_keeps_the_objectives() -> None:
    found = steps(RAMP, OBJECTIVES)
    best = capacity(found)
    assert best is not None
    assert best.users == 2
    assert capacity(found[2:]) is None


def test_a_failed_request_takes_time_and_gives_no_tokens() -> None:
    (step,) = steps([sample(2), failed(2)], OBJECTIVES)
    assert step.tokens_per_second == pytest.approx(2 * 20 / 2)
