"""The pool of patterns on the device against the automata and a naive set of patterns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from logit_processors.patterns import Automaton
from logit_processors.token_masks import Key, MaskPool, TokenBytes
from tests.unit_support import CPU, FOUR

SMALLEST = 64
"""States that a pool has room for, however little memory it may take."""
ROW_BYTES = 4 + 2 * 256
"""One word of bits for four tokens, and a transition a byte."""


def tokens_of(pool: MaskPool, pattern: int, state: int) -> list[int]:
    """Return the token ids in the set of a pattern's state."""
    words = pool.masks[int(pool.rows[pattern, state])].numpy()
    return np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little")).tolist()


@pytest.mark.parametrize("pattern", [b"ab a", b"a", b"aabaaab", b"abcabd", "\u00e4a".encode()])
@pytest.mark.parametrize("ignore_case", [False, True])
@pytest.mark.parametrize("advancing", [False, True])
def test_a_state_has_the_tokens_and_steps_of_its_automaton(
    pattern: bytes, ignore_case: bool, advancing: bool
) -> None:
    automaton = Automaton(pattern, ignore_case)
    pool = MaskPool(FOUR, CPU, 0)
    held = pool.acquire(automaton, advancing=advancing)
    assert held is not None
    number = held[1]
    assert pool.lengths[number] == len(pattern)
    for state in range(len(pattern)):
        find = automaton.advancing if advancing else automaton.completing
        assert tokens_of(pool, number, state) == sorted(find(state, FOUR).tolist())
        steps = pool.transitions[int(pool.rows[number, state])].tolist()
        assert steps == [automaton.step(state, bytes([byte])) for byte in range(256)]


def test_case_and_what_is_asked_of_a_pattern_make_it_another() -> None:
    pool = MaskPool(FOUR, CPU, 0)
    held = [
        pool.acquire(Automaton(b"a", ignore_case=ignore_case), advancing=advancing)
        for ignore_case in (False, True)
        for advancing in (False, True)
    ]
    assert len({each[1] for each in held if each is not None}) == 4


def test_what_nobody_holds_gives_way_also_where_the_pool_could_still_grow() -> None:
    pool = MaskPool(FOUR, CPU, 80 * ROW_BYTES)
    held = pool.acquire(Automaton(b"a" * 60), advancing=False)
    assert held is not None
    pool.release(held[0])
    assert pool.acquire(Automaton(b"b" * 70), advancing=False) is not None


def test_a_pattern_longer_than_the_pool_has_no_room() -> None:
    pool, automaton = MaskPool(FOUR, CPU, 0), Automaton(b"a" * (SMALLEST + 1))
    assert pool.acquire(automaton, advancing=False) is None


def test_bytes_of_tokens_lie_one_after_another() -> None:
    found = TokenBytes(FOUR, CPU)
    assert found.offsets.tolist() == [0, 1, 2, 4, 5]
    assert bytes(found.data.tolist()) == b"abab "


class Pools(RuleBasedStateMachine):
    """Requests come and go; nobody's pattern is lost, and room is refused only where none is."""

    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.pool = MaskPool(FOUR, CPU, 100 * ROW_BYTES)
        self.users: dict[Key, list[int]] = {}

    @rule(target=held, length=st.integers(1, 60), letter=st.sampled_from([b"a", b"b"]))
    def acquire(self, length: int, letter: bytes) -> Any:
        found = self.pool.acquire(Automaton(letter * length), advancing=False)
        key = (letter * length, False, False)
        others = sum(len(other[0]) for other in self.users if other != key)
        assert (found is not None) == (others + length <= 100)
        if found is None:
            return multiple()
        assert found[0] == key
        self.users.setdefault(key, []).append(found[1])
        return key

    @rule(key=consumes(held))
    def release(self, key: Key) -> None:
        self.pool.release(key)
        self.users[key].pop()
        if not self.users[key]:
            del self.users[key]

    @invariant()
    def all_that_is_held_is_there(self) -> None:
        rows: list[int] = []
        for (text, *_), numbers in self.users.items():
            (pattern,) = set(numbers)
            assert self.pool.lengths[pattern] == len(text)
            rows += self.pool.rows[pattern, : len(text)].tolist()
            last = len(text) - 1
            expected = Automaton(text).completing(last, FOUR)
            assert tokens_of(self.pool, pattern, last) == sorted(expected.tolist())
        assert len(rows) == len(set(rows))


Pools.TestCase.settings = settings(max_examples=30, stateful_step_count=15)
TestPools = Pools.TestCase
