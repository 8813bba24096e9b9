"""The bank's places: given to who needs them, taken from who does not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import SaturatedError
from service.vectors.content import VectorContent
from service.vectors.resident import HOLDER
from service.vectors.residual_bank import ResidualBank, ResidualSupport
from tests.unit_support import FakeEngine, cancelled_in_call

CONTENTS = [
    VectorContent({f"layer.{n}": np.full(4, n + 1, np.float32) for n in (at, at + 5)})
    for at in range(5)
]


def names(contents: Sequence[VectorContent]) -> set[str]:
    return {content.sha256 for content in contents}


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def bank(engine: FakeEngine) -> ResidualBank:
    return ResidualBank(engine, ResidualSupport(None, engine.residual_capacity))


async def test_the_workers_say_what_they_can(engine: FakeEngine) -> None:
    assert await ResidualSupport.of(engine) == ResidualSupport(None, 2)


async def test_api_processes_share_the_places(engine: FakeEngine) -> None:
    assert await ResidualSupport.of(engine, processes=2) == ResidualSupport(None, 1)


async def test_every_layer_is_brought_once(bank: ResidualBank, engine: FakeEngine) -> None:
    one = CONTENTS[0]
    with bank.lease([one.sha256]):
        await asyncio.gather(bank.bring([one]), bank.bring([one, one]))
    ((method, (sha256, data, layers, holder)),) = engine.calls
    assert (method, sha256, layers) == ("sensefield_put_residual", one.sha256, [0, 5])
    assert holder == HOLDER
    assert np.frombuffer(data, np.float32).tolist() == [1.0] * 4 + [6.0] * 4


async def test_the_least_recently_needed_makes_room(bank: ResidualBank, engine: FakeEngine) -> None:
    first, second, third = CONTENTS[:3]
    for content in (first, second, first):
        await bank.bring([content])
    with bank.lease([third.sha256]):
        await bank.bring([third])
    assert engine.residual == names([first, third])
    assert len(bank) == 2


async def test_what_is_leased_stays(bank: ResidualBank, engine: FakeEngine) -> None:
    first, second, third = CONTENTS[:3]
    with bank.lease(names([first])), bank.lease(names([first, second])):
        await bank.bring([first, second])
        with bank.lease([third.sha256]), pytest.raises(SaturatedError) as caught:
            await bank.bring([third])
        assert caught.value.param == "logit_control.steer"
        assert caught.value.retry_after
        assert engine.residual == names([first, second])
    with bank.lease([third.sha256]):
        await bank.bring([third])
    assert engine.residual == names([second, third])


async def test_a_worker_without_room_is_believed(bank: ResidualBank, engine: FakeEngine) -> None:
    """Requests that have just ended may hold places a little longer than their leases."""
    engine.residual_capacity = 0
    with pytest.raises(SaturatedError):
        await bank.bring([CONTENTS[0]])
    assert len(bank) == 0
    engine.residual_capacity = 2
    await bank.bring([CONTENTS[0]])
    assert engine.residual == names([CONTENTS[0]])


@settings(max_examples=60)
@given(st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=3), max_size=12))
def test_who_gets_through_has_all_it_needs(wanted: list[list[int]]) -> None:
    """Requests that overlap two by two; the bank has three places."""

    async def run() -> None:
        engine = FakeEngine(residual_capacity=3)
        bank = ResidualBank(engine, ResidualSupport(None, 3))
        before: set[str] = set()
        for numbers in wanted:
            contents = [CONTENTS[number] for number in numbers]
            needed = names(contents)
            with bank.lease(before), bank.lease(needed):
                try:
                    await bank.bring(contents)
                except SaturatedError:
                    assert len(needed | before) > 3
                    needed = set()
                else:
                    assert needed <= engine.residual
                assert before <= engine.residual
                assert len(engine.residual) <= 3
            before = needed

    asyncio.run(run())


async def test_a_place_given_to_one_who_left_is_counted_and_given_away(
    bank: ResidualBank, engine: FakeEngine
) -> None:
    await cancelled_in_call(engine, bank.bring([CONTENTS[0]]))
    for content in CONTENTS[1:]:
        with bank.lease([content.sha256]):
            await bank.bring([content])
    assert engine.residual == names(CONTENTS[3:])
    assert len(bank) == 2
