"""The cache of token sets on the device."""

from __future__ import annotations

import pytest

from logit_processors.pattern_sets import CompiledPattern
from logit_processors.patterns import Automaton, Pattern
from logit_processors.token_sets import TokenSets
from logit_processors.vocabulary import Vocabulary
from tests.unit_support import CPU

VOCABULARY = Vocabulary([b"a", b"b", b"ab"])


def compiled(text: str, *, advancing: bool = False, ignore_case: bool = False) -> CompiledPattern:
    pattern = Pattern(Automaton.of(text, ignore_case=ignore_case), advancing)
    return CompiledPattern.of(pattern, VOCABULARY)


def test_sets_are_made_once() -> None:
    sets = TokenSets(CPU)
    first = sets.get(compiled("ab"), 0)
    assert first.tolist() == [2]
    assert sets.get(compiled("ab", advancing=True), 0).tolist() == [0, 2]
    assert sets.get(compiled("ab"), 1).tolist() == [1, 2]
    # An equal pattern of another request shares them.
    assert sets.get(compiled("ab"), 0) is first
    assert sets.get(compiled("ab", ignore_case=True), 0) is not first


def test_the_least_recently_used_makes_room() -> None:
    sets = TokenSets(CPU, 2 * (256 + 2 * 8))
    patterns = {text: compiled(text) for text in ("a", "b", "ab")}
    made = {text: sets.get(patterns[text], 0) for text in ("a", "b")}
    assert sets.get(patterns["a"], 0) is made["a"]
    made["ab"] = sets.get(patterns["ab"], 0)
    assert sets.get(patterns["a"], 0) is made["a"]
    assert sets.get(patterns["ab"], 0) is made["ab"]
    assert sets.get(patterns["b"], 0) is not made["b"]


@pytest.mark.parametrize("capacity_bytes", [0, 1])
def test_a_set_larger_than_the_cache_is_still_given(capacity_bytes: int) -> None:
    sets = TokenSets(CPU, capacity_bytes)
    for _ in range(3):
        for text, expected in (("a", [0, 2]), ("b", [1, 2])):
            assert sets.get(compiled(text), 0).tolist() == expected
