"""Automata over bytes: the state after a text, and what follows from it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from logit_processors.patterns import Automaton
from logit_processors.vocabulary import Vocabulary

# A tiny alphabet makes overlaps common: "aa", "abab", tokens that hold a pattern inside.
texts = st.text("abA ", max_size=6)
patterns = st.text("abA ", min_size=1, max_size=5)
vocabularies = st.builds(
    Vocabulary,
    st.lists(texts.map(str.encode), min_size=1, max_size=14),
    st.frozensets(st.integers(0, 3), max_size=2),
)
outputs = st.lists(st.integers(0, 15), max_size=8)


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


def test_matching_passes_over_control_tokens() -> None:
    vocabulary = Vocabulary([b"a", b"<end>", b"b"], frozenset({1}))
    automaton = Automaton.of("ab", ignore_case=False)
    assert automaton.state_after([0, 1, 1], vocabulary) == 1
