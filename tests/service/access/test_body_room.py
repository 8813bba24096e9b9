"""Room for bodies: of one, of all, and given back."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.access.body_room import BodyMemoryLimit, Reservation
from service.errors import SaturatedError, TooLargeError

MOST, MOST_OF_ALL = 10, 25


@pytest.mark.parametrize("taken", [(11,), (10, 1), (1, 10)])
def test_one_body_has_no_more_than_its_limit(taken: tuple[int, ...]) -> None:
    room = BodyMemoryLimit(MOST, MOST_OF_ALL)
    with room.held(0) as body:
        for size in taken[:-1]:
            body.take(size)
        with pytest.raises(TooLargeError, match="over 10 bytes"):
            body.take(taken[-1])
    with room.held(10):
        pass
    with pytest.raises(TooLargeError, match="over 10 bytes"), room.held(11):
        pass


def test_what_is_too_large_for_all_is_too_large_for_one() -> None:
    with pytest.raises(TooLargeError, match="over 3 bytes"), BodyMemoryLimit(5, 3).held(4):
        pass


def test_who_announces_much_and_sends_nothing_keeps_nobody_out() -> None:
    room = BodyMemoryLimit(MOST, MOST_OF_ALL)
    with ExitStack() as many:
        bodies = [many.enter_context(room.held(MOST)) for _ in range(10)]
        bodies[0].take(MOST)
        bodies[1].take(MOST)
        # Of those that send after all, the last find no room left.
        with pytest.raises(SaturatedError, match="over 25 bytes"):
            bodies[2].take(6)
        with pytest.raises(SaturatedError), room.held(6):
            pass
        bodies[2].take(5)


def test_a_body_that_finds_no_room_keeps_what_it_has_until_it_ends() -> None:
    room = BodyMemoryLimit(MOST, MOST_OF_ALL)
    with room.held(0) as one, room.held(0) as two, room.held(5) as three:
        one.take(10)
        two.take(10)
        with room.held(0) as body:
            body.take(3)
            with pytest.raises(SaturatedError, match="over 25 bytes"):
                body.take(3)
            with pytest.raises(SaturatedError):
                three.take(3)
        three.take(5)


def refused_unless(fits: bool) -> AbstractContextManager[Any]:
    """Expect a refusal of what does not fit."""
    return nullcontext() if fits else pytest.raises((TooLargeError, SaturatedError))


class Bodies(RuleBasedStateMachine):
    """Bodies that come, grow and end, against a list of their sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.room = BodyMemoryLimit(MOST, MOST_OF_ALL)
        self.bodies: list[tuple[ExitStack, Reservation]] = []

    @rule(size=st.integers(0, 12))
    def come(self, size: int) -> None:
        ending = ExitStack()
        fits = size <= MOST and self.taken() + size <= MOST_OF_ALL
        with refused_unless(fits):
            room = ending.enter_context(self.room.held(size))
            room.take(size)
            self.bodies.append((ending, room))

    @precondition(lambda self: self.bodies)
    @rule(data=st.data(), size=st.integers(0, 12))
    def grow(self, data: st.DataObject, size: int) -> None:
        _, body = data.draw(st.sampled_from(self.bodies))
        fits = body.size + size <= MOST and self.taken() + size <= MOST_OF_ALL
        with refused_unless(fits):
            body.take(size)

    @precondition(lambda self: self.bodies)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        ending, _ = self.bodies.pop(data.draw(st.integers(0, len(self.bodies) - 1)))
        ending.close()

    def taken(self) -> int:
        return sum(body.size for _, body in self.bodies)

    @invariant()
    def counts_what_is_there(self) -> None:
        assert self.room._taken == self.taken() <= MOST_OF_ALL


TestBodies = Bodies.TestCase
