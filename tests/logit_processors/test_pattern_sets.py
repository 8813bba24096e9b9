"""The token sets of patterns against a model that keeps the whole text and looks into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from logit_processors.checks import ControlError
from logit_processors.pattern_sets import CompiledPattern
from logit_processors.patterns import Automaton, Pattern
from logit_processors.vocabulary import Vocabulary, fold_ascii

# A tiny alphabet makes overlaps common: "aa", "abab", tokens that hold a pattern inside.
texts = st.text("abA ", max_size=6)
patterns = st.text("abA ", min_size=1, max_size=5)
# Sets are listed where that is shorter: in wide vocabularies.
widths = st.sampled_from([0, 4000])
vocabularies = st.builds(
    Vocabulary,
    st.lists(texts.map(str.encode), min_size=1, max_size=14),
    st.frozensets(st.integers(0, 3), max_size=2),
    widths,
)
outputs = st.lists(st.integers(0, 15), max_size=8)


def compiled(
    text: str, advancing: bool, vocabulary: Vocabulary, ignore_case: bool = False
) -> CompiledPattern:
    pattern = Pattern(Automaton.of(text, ignore_case=ignore_case), advancing)
    return CompiledPattern.of(pattern, vocabulary)


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
    completing = compiled(pattern, False, vocabulary, ignore_case).ids(state).tolist()
    assert completing == [i for i, t in enumerate(tokens) if naive.completes(text, t)]
    advancing = compiled(pattern, True, vocabulary, ignore_case).ids(state).tolist()
    assert advancing == [i for i, t in enumerate(tokens) if naive.advances(text, t)]


def test_a_phrase_is_followed_across_three_tokens() -> None:
    vocabulary = Vocabulary([b"As", b" an", b" AI", b" A", b"I", b" an AI", b"xAs an AIx"])
    automaton = Automaton.of("As an AI", ignore_case=False)
    completing = compiled("As an AI", False, vocabulary)
    advancing = compiled("As an AI", True, vocabulary)
    assert completing.ids(0).tolist() == [6]
    assert advancing.ids(0).tolist() == [0, 3, 6]  # " A" ends with an "A"
    after_two = automaton.state_after([0, 1], vocabulary)
    assert after_two == len("As an")
    assert completing.ids(after_two).tolist() == [2, 6]
    assert advancing.ids(after_two).tolist() == [2, 3, 6]
    after_three = automaton.state_after([0, 1, 3], vocabulary)
    assert completing.ids(after_three).tolist() == [4, 6]


def test_a_lone_space_does_not_advance_a_word() -> None:
    vocabulary = Vocabulary([b" ", b" o", b" ocean", b"o", b"ocean", b"\n", b"  "])
    automaton = Automaton.of(" ocean", ignore_case=False)
    advancing = compiled(" ocean", True, vocabulary)
    assert advancing.ids(0).tolist() == [1, 2]
    after_space = automaton.state_after([0], vocabulary)
    assert after_space == 1
    assert advancing.ids(after_space).tolist() == [1, 2, 3, 4]


def test_white_space_alone_is_a_pattern_like_any_other() -> None:
    vocabulary = Vocabulary([b" ", b"\n", b"\n\n", b"a\n"])
    completing = compiled("\n\n", False, vocabulary)
    advancing = compiled("\n\n", True, vocabulary)
    assert advancing.ids(0).tolist() == [1, 2, 3]
    assert completing.ids(1).tolist() == [1, 2]


def test_characters_are_matched_by_their_bytes() -> None:
    vocabulary = Vocabulary([b"\xe6", b"\xb5\xb7", "海".encode(), b"\xb5", b"\xb7"])
    automaton = Automaton.of("海", ignore_case=True)
    completing = compiled("海", False, vocabulary, ignore_case=True)
    assert completing.ids(0).tolist() == [2]
    assert completing.ids(automaton.step(0, b"\xe6")).tolist() == [1, 2]
    assert completing.ids(automaton.step(0, b"\xe6\xb5")).tolist() == [2, 4]


def test_control_tokens_are_not_text() -> None:
    vocabulary = Vocabulary([b"a", b"<end>", b"b"], frozenset({1}))
    assert compiled("end", False, vocabulary).ids(0).tolist() == []


def test_states_share_equal_sets() -> None:
    vocabulary = Vocabulary([b"a", b"b", b"aab"], width=4000)
    found = compiled("ab" * 100, False, vocabulary)
    assert len(found.of_state) == 200
    assert len(found.listed) == 2  # of the last state, and of all others
    assert found.nbytes < 300


@pytest.mark.parametrize("width", [3, 4000])
def test_what_msgpack_carries_is_the_same_pattern(width: int) -> None:
    made = compiled("ab", True, Vocabulary([b"a", b"b", b"ab"], width=width))
    assert bool(made.masked) == (width == 3)
    wire = msgspec.msgpack.decode(msgspec.msgpack.encode(made.to_wire()))
    assert CompiledPattern.from_wire(made.pattern, wire) == made
    other = replace(made.pattern, automaton=Automaton(b"abc"))
    with pytest.raises(ControlError, match="2 token sets do not fit a pattern of 3 bytes"):
        CompiledPattern.from_wire(other, wire)
    with pytest.raises(ControlError, match="do not fit"):
        CompiledPattern.from_wire(made.pattern, [[], [], b"\0\0"])
