"""Text patterns along a growing output: states follow from the output alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from logit_processors.control import between
from logit_processors.host_text import Matched, TextStates
from logit_processors.vocabulary import Vocabulary
from tests.entries import bias_text, entries_of, program_of, suppress_text
from tests.unit_support import FOUR, INF, compiled_of, run_programs, same

PROGRAM = program_of(
    text_bias=(bias_text("abab", 1.0), bias_text("b ", 2.0, True)),
    text_suppress=(suppress_text("aa"), suppress_text("abab")),
)
COMPILED = compiled_of(PROGRAM)
MATCHED = [
    Matched(entry, COMPILED[pattern], 1.0)
    for control, _ in PROGRAM.used()
    for entry in entries_of(PROGRAM, control.name)
    for pattern in control.patterns(entry)
]
tokens = st.integers(0, 3)


def states_of(kept: TextStates) -> list[int]:
    return [state for _, state, _ in kept.active()]


def states_from_scratch(output: list[int]) -> list[int]:
    fresh = TextStates(MATCHED)
    fresh.advance(list(output), FOUR)
    return states_of(fresh)


@given(st.lists(st.lists(tokens, max_size=3), max_size=5))
def test_states_kept_are_states_recomputed(steps: list[list[int]]) -> None:
    output: list[int] = []
    kept = TextStates(MATCHED)
    for step in steps:
        output += step
        kept.advance(output, FOUR)
        kept.advance(output, FOUR)  # a step looks twice: to choose a token, and to keep its row
        assert states_of(kept) == states_from_scratch(output)


@given(st.lists(tokens, min_size=1, max_size=6), st.data())
def test_tokens_taken_back_leave_nothing(output: list[int], data: st.DataObject) -> None:
    kept = TextStates(MATCHED)
    kept.advance(output, FOUR)
    del output[data.draw(st.integers(0, len(output) - 1)) :]
    kept.advance(output, FOUR)
    assert states_of(kept) == states_from_scratch(output)


def test_tokens_taken_back_and_replaced_at_once_leave_nothing() -> None:
    output = [3, 0]  # " a"
    kept = TextStates(MATCHED)
    kept.advance(output, FOUR)
    output[-1:] = [3]  # the "a" was a draft that the model did not take
    kept.advance(output, FOUR)
    assert states_of(kept) == states_from_scratch(output)


def test_a_biased_text_is_led_to_its_end_and_no_further() -> None:
    program = program_of(text_bias=(bias_text("ab ", 3.0),))
    zeros = torch.zeros(1, 4)

    def raised(output: list[int]) -> list[float]:
        return run_programs([program], zeros, [output])[0].tolist()

    assert raised([]) == [3.0, 0.0, 3.0, 0.0]
    assert raised([0]) == [0.0, 3.0, 3.0, 0.0]
    assert raised([2]) == [0.0, 0.0, 0.0, 3.0]
    assert raised([2, 3]) == [3.0, 0.0, 3.0, 0.0]


def test_a_suppressed_text_is_stopped_at_its_last_token_only() -> None:
    program = program_of(text_suppress=(suppress_text("aba"),))
    zeros = torch.zeros(1, 4)

    def allowed(output: list[int]) -> list[bool]:
        return (run_programs([program], zeros, [output])[0] > -INF).tolist()

    assert allowed([]) == [True] * 4
    assert allowed([0]) == [True] * 4
    assert allowed([2]) == [False, True, False, True]
    assert allowed([0, 1]) == [False, True, False, True]
    assert allowed([2, 3]) == [True] * 4


@pytest.mark.parametrize(("size", "applies"), [(0, False), (1, True), (2, True), (3, False)])
def test_windows_count_generated_tokens(size: int, applies: bool) -> None:
    program = program_of(
        text_bias=(bias_text("a", 1.0, when=between(1, 3)),),
        text_suppress=(suppress_text(" ", when=between(1, 3)),),
    )
    output = [1] * size
    expected = [[1.0, 0.0, 1.0, -INF]] if applies else [[0.0] * 4]
    assert run_programs([program], torch.zeros(1, 4), [output]).tolist() == expected


def test_a_suppression_that_starts_late_knows_what_came_before() -> None:
    program = program_of(text_suppress=(suppress_text("aab", when=between(2)),))
    controlled = run_programs([program], torch.zeros(1, 4), [[0, 0]])
    assert controlled.tolist() == [[0.0, -INF, -INF, 0.0]]


def test_entries_of_the_same_text_add_up() -> None:
    twice = program_of(text_bias=(bias_text("b", 1.0), bias_text("b", 2.0)))
    once = program_of(text_bias=(bias_text("b", 3.0),))
    zeros = torch.zeros(1, 4)
    assert same(run_programs([twice], zeros), run_programs([once], zeros))


def test_padding_and_control_tokens_are_stepped_over() -> None:
    vocabulary = Vocabulary([b"a", b"<end>", b"b"], frozenset({1}), width=5)
    program = program_of(text_suppress=(suppress_text("ab"),))
    controlled = run_programs([program], torch.zeros(1, 5), [[0, 1, 4]], vocabulary)
    assert controlled.tolist() == [[0.0, 0.0, -INF, 0.0, 0.0]]


def test_rows_without_patterns_are_left_alone() -> None:
    program = program_of(text_suppress=(suppress_text("a"),))
    controlled = run_programs([None, program, program_of()], torch.zeros(3, 4))
    assert controlled.tolist() == [[0.0] * 4, [-INF, 0.0, -INF, 0.0], [0.0] * 4]
