"""Automata over bytes against a model that keeps the whole text and looks into it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from logit_processors.patterns import Automaton, TokenIds, TokenSets
from logit_processors.vocabulary import Vocabulary, fold_ascii

# A tiny alphabet makes overlaps common: "aa", "abab", tokens that hold a pattern inside.
texts = st.text("abA ", max_size=6)
patterns = st.text("abA ", min_size=1, max_size=5)
vocabularies = st.builds(
    Vocabulary,
    st.lists(texts.map(str.encode), min_size=1, max_size=14),
    st.frozensets(st.integers(0, 3), max_size=2),
)
outputs = st.lists(st.integers(0, 15), max_size=8)


class Naive:
    """The text so far, whole."""

    def __init__(self, pattern: str, ignore_case: bool) -> None:
        self.fold = fold_ascii if ignore_case else bytes
        self.pattern = self.fold(pattern.encode())
        bare = self.pattern.lstrip()
        self.leading = len(self.pattern) - len(bare) if bare else 0

    def occurrences(self, text: bytes) -> int:
        size = len(self.pattern)
        folded = self.fold(text)
        return sum(folded[i : i + size] == self.pattern for i in range(len(folded)))

    def matched(self, text: bytes) -> int:
        """How much of the pattern, short of all, the text ends with."""
        folded = self.fold(text)
        sizes = range(len(self.pattern))
        return max(size for size in sizes if folded.endswith(self.pattern[:size]))

    def completes(self, text: bytes, token: bytes) -> bool:
        return self.occurrences(text + token) > self.occurrences(text)

    def advances(self, text: bytes, token: bytes) -> bool:
        after = self.matched(text + token)
        # The white space before a word begins every word alike and tells of none.
        further = after > self.matched(text) and after > self.leading
        return bool(token) and (further or self.completes(text, token))


def written(vocabulary: Vocabulary, output: Sequence[int]) -> bytes:
    return b"".join(vocabulary.text_bytes(token) for token in output)


@settings(max_examples=1500)
@given(patterns, st.booleans(), vocabularies, outputs)
@example("aa", False, Vocabulary([b"a", b"aa", b"aaa"]), [0, 0, 0])
@example("abab", False, Vocabulary([b"ab", b"a", b"ba", b"abab"]), [0, 0])
@example("abaab", False, Vocabulary([b"ab", b"a", b"b"]), [0, 1, 0])
@example(" ab", True, Vocabulary([b" ", b" A", b"AB", b"B", b"  ab "]), [0])
def test_tokens_found_are_those_of_the_whole_text(
    pattern: str, ignore_case: bool, vocabulary: Vocabulary, output: list[int]
) -> None:
    naive = Naive(pattern, ignore_case)
    automaton = Automaton.of(pattern, ignore_case=ignore_case)
    text = written(vocabulary, output)
    state = automaton.state_after(output, vocabulary)
    assert state == naive.matched(text)
    tokens = [vocabulary.text_bytes(i) for i in range(len(vocabulary))]
    completing = automaton.completing(state, vocabulary).tolist()
    assert completing == [i for i, t in enumerate(tokens) if naive.completes(text, t)]
    advancing = automaton.advancing(state, vocabulary).tolist()
    assert advancing == [i for i, t in enumerate(tokens) if naive.advances(text, t)]


@given(patterns, st.booleans(), vocabularies, outputs)
def test_the_last_bytes_tell_what_stepping_through_all_does(
    pattern: str, ignore_case: bool, vocabulary: Vocabulary, output: list[int]
) -> None:
    automaton = Automaton.of(pattern, ignore_case=ignore_case)
    state = 0
    for token in output:
        state = automaton.step(state, vocabulary.text_bytes(token))
    assert automaton.state_after(output, vocabulary) == state


@given(patterns, texts, texts)
def test_stepping_in_pieces_is_stepping_at_once(pattern: str, left: str, right: str) -> None:
    automaton = Automaton.of(pattern, ignore_case=False)
    in_pieces = automaton.step(automaton.step(0, left.encode()), right.encode())
    assert in_pieces == automaton.step(0, (left + right).encode())


@given(patterns)
def test_the_chain_is_every_match_that_a_state_implies(pattern: str) -> None:
    automaton = Automaton.of(pattern, ignore_case=False)
    data = pattern.encode()
    for state in range(len(data)):
        implied = [s for s in range(state, -1, -1) if data[:state].endswith(data[:s])]
        assert automaton.chain(state) == implied


def test_a_phrase_is_followed_across_three_tokens() -> None:
    vocabulary = Vocabulary([b"As", b" an", b" AI", b" A", b"I", b" an AI", b"xAs an AIx"])
    automaton = Automaton.of("As an AI", ignore_case=False)
    assert automaton.completing(0, vocabulary).tolist() == [6]
    assert automaton.advancing(0, vocabulary).tolist() == [0, 3, 6]  # " A" ends with an "A"
    after_two = automaton.state_after([0, 1], vocabulary)
    assert after_two == len("As an")
    assert automaton.completing(after_two, vocabulary).tolist() == [2, 6]
    assert automaton.advancing(after_two, vocabulary).tolist() == [2, 3, 6]
    after_three = automaton.state_after([0, 1, 3], vocabulary)
    assert automaton.completing(after_three, vocabulary).tolist() == [4, 6]


def test_a_lone_space_does_not_advance_a_word() -> None:
    vocabulary = Vocabulary([b" ", b" o", b" ocean", b"o", b"ocean", b"\n", b"  "])
    automaton = Automaton.of(" ocean", ignore_case=False)
    assert automaton.advancing(0, vocabulary).tolist() == [1, 2]
    after_space = automaton.state_after([0], vocabulary)
    assert after_space == 1
    assert automaton.advancing(after_space, vocabulary).tolist() == [1, 2, 3, 4]


def test_white_space_alone_is_a_pattern_like_any_other() -> None:
    vocabulary = Vocabulary([b" ", b"\n", b"\n\n", b"a\n"])
    automaton = Automaton.of("\n\n", ignore_case=False)
    assert automaton.advancing(0, vocabulary).tolist() == [1, 2, 3]
    assert automaton.completing(1, vocabulary).tolist() == [1, 2]


def test_characters_are_matched_by_their_bytes() -> None:
    vocabulary = Vocabulary([b"\xe6", b"\xb5\xb7", "海".encode(), b"\xb5", b"\xb7"])
    automaton = Automaton.of("海", ignore_case=True)
    assert automaton.completing(0, vocabulary).tolist() == [2]
    assert automaton.completing(automaton.step(0, b"\xe6"), vocabulary).tolist() == [1, 2]
    assert automaton.completing(automaton.step(0, b"\xe6\xb5"), vocabulary).tolist() == [2, 4]


def test_matching_passes_over_control_tokens() -> None:
    vocabulary = Vocabulary([b"a", b"<end>", b"b"], frozenset({1}))
    automaton = Automaton.of("ab", ignore_case=False)
    assert automaton.state_after([0, 1, 1], vocabulary) == 1
    assert Automaton.of("end", ignore_case=False).completing(0, vocabulary).tolist() == []


class TestTokenSets:
    """The cache of token sets."""

    def make(self, capacity_bytes: int) -> tuple[TokenSets[list[int]], list[list[int]]]:
        converted: list[list[int]] = []

        def convert(ids: TokenIds) -> list[int]:
            converted.append(ids.tolist())
            return converted[-1]

        vocabulary = Vocabulary([b"a", b"b", b"ab"])
        return TokenSets(vocabulary, convert, capacity_bytes), converted

    def test_sets_are_made_once(self) -> None:
        sets, converted = self.make(1 << 20)
        automaton = Automaton.of("ab", ignore_case=False)
        assert sets.get(automaton, 0, advancing=False) == [2]
        assert sets.get(automaton, 0, advancing=True) == [0, 2]
        assert sets.get(automaton, 1, advancing=False) == [1, 2]
        # An equal automaton of another request shares them.
        assert sets.get(Automaton.of("ab", ignore_case=False), 0, advancing=False) == [2]
        assert len(converted) == 3
        sets.get(Automaton.of("ab", ignore_case=True), 0, advancing=False)
        assert len(converted) == 4

    def test_the_least_recently_used_makes_room(self) -> None:
        sets, converted = self.make(2 * (256 + 3 * 8))
        first, second, third = (Automaton.of(text, ignore_case=False) for text in ("a", "b", "ab"))
        for automaton in (first, second, first, third):
            sets.get(automaton, 0, advancing=False)
        made = len(converted)
        sets.get(first, 0, advancing=False)
        sets.get(third, 0, advancing=False)
        assert len(converted) == made
        sets.get(second, 0, advancing=False)
        assert len(converted) == made + 1

    @pytest.mark.parametrize("capacity_bytes", [0, 1])
    def test_a_set_larger_than_the_cache_is_still_given(self, capacity_bytes: int) -> None:
        sets, _ = self.make(capacity_bytes)
        for _ in range(3):
            for text, expected in (("a", [0, 2]), ("b", [1, 2])):
                automaton = Automaton.of(text, ignore_case=False)
                assert sets.get(automaton, 0, advancing=False) == expected

    def test_sets_come_as_what_is_converted(self) -> None:
        sets = TokenSets(Vocabulary([b"a", b"ba"]), np.flip)
        automaton = Automaton.of("a", ignore_case=False)
        assert sets.get(automaton, 0, advancing=True).tolist() == [1, 0]
