"""The pool of patterns on the device against the compiled patterns and a naive set of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from logit_processors.pattern_sets import CompiledPattern
from logit_processors.patterns import Automaton, Pattern
from logit_processors.token_masks import MaskPool, TokenBytes
from logit_processors.vocabulary import Vocabulary
from tests.unit_support import CPU, FOUR

SMALLEST = 64
"""States that a pool has room for, however little memory it may take."""
ROW_BYTES = 4 + 2 * 256
"""One word of bits for four tokens, and a transition a byte."""


def completing(text: bytes, vocabulary: Vocabulary = FOUR) -> CompiledPattern:
    return CompiledPattern.of(Pattern(Automaton(text), advancing=False), vocabulary)


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
    made = CompiledPattern.of(Pattern(automaton, advancing), FOUR)
    pool = MaskPool(FOUR.width, CPU, 0)
    # Written together with another, whose sets come first.
    held = pool.acquire([completing(b"b a"), made])
    assert held is not None
    number = held[1]
    assert pool.lengths[number] == len(pattern)
    for state in range(len(pattern)):
        assert tokens_of(pool, number, state) == made.ids(state).tolist()
        steps = pool.transitions[int(pool.rows[number, state])].tolist()
        assert steps == [automaton.step(state, bytes([byte])) for byte in range(256)]


def test_listed_and_masked_sets_of_many_patterns_are_told_apart() -> None:
    """In a vocabulary of which a mask is two words, sets of more than two tokens are masked."""
    tokens = [b"%d" % number for number in range(40)]
    vocabulary = Vocabulary(tokens)
    pool = MaskPool(vocabulary.width, CPU, 0)
    made = [completing(text, vocabulary) for text in (b"1", b"39", b"0", b"31", b"2")]
    assert {len(each.listed) > 0 for each in made} == {True, False}
    numbers = pool.acquire(made)
    assert numbers is not None
    for number, each in zip(numbers, made, strict=True):
        for state in range(len(each.pattern)):
            assert tokens_of(pool, number, state) == each.ids(state).tolist()
    text = made[0].pattern.automaton.pattern
    assert tokens_of(pool, numbers[0], 0) == [at for at in range(40) if text in tokens[at]]


def test_patterns_of_more_states_than_are_written_at_once_are_all_written() -> None:
    pool = MaskPool(FOUR.width, CPU, 2000 * ROW_BYTES)
    made = [completing(b"ab" * length + b"%d" % length) for length in range(1, 40)]
    assert sum(len(each.pattern) for each in made) > 1024
    numbers = pool.acquire(made)
    assert numbers is not None
    for number, each in zip(numbers, made, strict=True):
        last = len(each.pattern) - 1
        assert tokens_of(pool, number, last) == each.ids(last).tolist()
        steps = pool.transitions[int(pool.rows[number, 0])]
        assert steps[ord("a")] == 1


def test_case_and_what_is_asked_of_a_pattern_make_it_another() -> None:
    pool = MaskPool(FOUR.width, CPU, 0)
    patterns = [
        Pattern(Automaton(b"a", ignore_case=ignore_case), advancing)
        for ignore_case in (False, True)
        for advancing in (False, True)
    ]
    numbers = pool.acquire([CompiledPattern.of(pattern, FOUR) for pattern in patterns])
    assert numbers is not None
    assert len(set(numbers)) == 4


def test_what_no_request_holds_gives_way_also_where_the_pool_could_still_grow() -> None:
    pool = MaskPool(FOUR.width, CPU, 80 * ROW_BYTES)
    held = completing(b"a" * 60)
    assert pool.acquire([held]) is not None
    pool.release([held.pattern])
    assert pool.acquire([completing(b"b" * 70)]) is not None


def test_a_pattern_longer_than_the_pool_has_no_room() -> None:
    pool = MaskPool(FOUR.width, CPU, 0)
    assert pool.acquire([completing(b"a" * (SMALLEST + 1))]) is None


def test_patterns_that_do_not_fit_together_are_not_held() -> None:
    pool = MaskPool(FOUR.width, CPU, 0)
    first, second = completing(b"a" * 40), completing(b"b" * 40)
    assert pool.acquire([first, second]) is None
    assert pool.acquire([first]) is not None
    assert pool.acquire([first, second]) is None
    pool.release([first.pattern])
    assert pool.acquire([second]) is not None


def test_bytes_of_tokens_lie_one_after_another() -> None:
    found = TokenBytes(FOUR, CPU)
    assert found.offsets.tolist() == [0, 1, 2, 4, 5]
    assert bytes(found.data.tolist()) == b"abab "


class Pools(RuleBasedStateMachine):
    """Requests come and go; nobody's pattern is lost, and room is refused only where none is."""

    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.pool = MaskPool(FOUR.width, CPU, 100 * ROW_BYTES)
        self.users: dict[Pattern, list[int]] = {}

    @rule(target=held, length=st.integers(1, 60), letter=st.sampled_from([b"a", b"b"]))
    def acquire(self, length: int, letter: bytes) -> Any:
        wanted = completing(letter * length)
        found = self.pool.acquire([wanted])
        key = wanted.pattern
        others = sum(len(other) for other in self.users if other != key)
        assert (found is not None) == (others + length <= 100)
        if found is None:
            return multiple()
        self.users.setdefault(key, []).append(found[0])
        return key

    @rule(key=consumes(held))
    def release(self, key: Pattern) -> None:
        self.pool.release([key])
        self.users[key].pop()
        if not self.users[key]:
            del self.users[key]

    @invariant()
    def all_that_is_held_is_there(self) -> None:
        rows: list[int] = []
        for key, numbers in self.users.items():
            (pattern,) = set(numbers)
            assert self.pool.lengths[pattern] == len(key)
            rows += self.pool.rows[pattern, : len(key)].tolist()
            last = len(key) - 1
            expected = CompiledPattern.of(key, FOUR).ids(last)
            assert tokens_of(self.pool, pattern, last) == expected.tolist()
        assert len(rows) == len(set(rows))


Pools.TestCase.settings = settings(max_examples=30, stateful_step_count=15)
TestPools = Pools.TestCase
