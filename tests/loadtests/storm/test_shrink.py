"""A failure is shrunk to the requests, and the parts of them, that it needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from loadtests.measure.deadline import Deadline
from loadtests.storm.crowd import Failure
from loadtests.storm.shot import COMPLETION, Shot
from loadtests.storm.shrink import Shrinker

BODY = {"prompt": "a long prompt", "seed": 42, "n": 3, "stop": ["x", "y"], "top_p": 0.5}


def shrinker(fails: Callable[[Sequence[Shot]], bool], seconds: float = 60) -> Shrinker:
    async def answer(shots: Sequence[Shot]) -> bool:
        return fails(shots)

    return Shrinker(answer, Deadline(seconds))


def failure(count: int = 1) -> Failure:
    crowd = tuple(Shot(number, COMPLETION, BODY, patience=1.0) for number in range(count))
    return Failure(crowd[0], "wrong", "wrong", crowd)


async def test_one_that_fails_alone_keeps_the_field_that_does_it() -> None:
    found = await shrinker(lambda shots: all("seed" in one.fields for one in shots)).shrink(
        failure(5)
    )
    assert [dict(one.fields) for one in found] == [{"seed": 1}]
    assert found[0].patience is None


async def test_one_that_needs_others_keeps_those() -> None:
    def fails(shots: Sequence[Shot]) -> bool:
        return {3, 6} <= {one.number for one in shots}

    found = await shrinker(fails).shrink(failure(8))
    assert [(one.number, dict(one.fields)) for one in found] == [(3, {}), (6, {})]


async def test_one_that_does_not_repeat_has_none() -> None:
    assert await shrinker(lambda shots: False).shrink(failure(3)) == []


async def test_it_ends_in_time() -> None:
    found = await shrinker(lambda shots: True, 0).shrink(failure())
    assert dict(found[0].fields) == BODY
