"""The V1 adapter against a naive model: requests come, go, move, are preempted and resumed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from vllm.sampling_params import SamplingParams, StructuredOutputsParams
from vllm.v1.sample.logits_processor.interface import BatchUpdate, MoveDirectionality

from logit_processors import v1
from logit_processors.control import between
from logit_processors.places import Layout
from logit_processors.processor import ControlProcessor
from logit_processors.program import Program
from logit_processors.row_spec import ALIVE, BROKEN, EXHAUSTED
from logit_processors.vocabulary import Vocabulary
from tests.entries import (
    bias_text,
    bias_token,
    entries_of,
    program_of,
    suppress_text,
    suppress_token,
)
from tests.integration.expected import set_of
from tests.unit_support import CPU
from tests.vllm_objects import program_wire, sampling_params, vllm_config

ROWS = 4
VOCABULARY = Vocabulary([b"a", b"b", b"ab", b"aab", b" a", b"</s>", b"ba", b""], frozenset({5}))
WINDOWS = st.sampled_from([between(), between(1, 3), between(2)])
TEXTS = st.sampled_from(["ab", "aa", "aba", " ab", "bb"])
PROGRAMS = st.builds(
    program_of,
    token_bias=st.lists(st.builds(bias_token, st.integers(0, 7), st.floats(-5, 5), WINDOWS)).map(
        tuple
    ),
    text_bias=st.lists(
        st.builds(bias_text, TEXTS, st.floats(-5, 5), st.just(False), WINDOWS), max_size=2
    ).map(tuple),
    token_suppress=st.lists(st.builds(suppress_token, st.integers(0, 7), WINDOWS)).map(tuple),
    text_suppress=st.lists(
        st.builds(suppress_text, TEXTS, st.just(False), WINDOWS), max_size=2
    ).map(tuple),
)
FORCING = st.builds(
    program_of, force=st.lists(st.integers(0, 7), min_size=1, max_size=3).map(tuple)
)


def make_processor() -> Any:
    """Make the adapter as vLLM's V1 loader does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(v1, "load_vocabulary", lambda model_config: VOCABULARY)
        return ControlProcessor(vllm_config(ROWS), torch.device("cpu"), False)


def naive_row(program: Program | None, output: list[int], logits: np.ndarray[Any, Any]) -> Any:
    """Return the controlled row of one request."""
    row = logits.astype(np.float64)
    if program is None:
        return row
    at, text = len(output), b"".join(VOCABULARY.text_bytes(token) for token in output)
    for bias in entries_of(program, "token_bias"):
        row[bias.token_id] += bias.add * bias.covers(at)
    for phrase in entries_of(program, "text_bias"):
        if phrase.covers(at):
            row[set_of(text, {"text": phrase.text}, VOCABULARY, bias=True)] += phrase.add
    for token in entries_of(program, "token_suppress"):
        if token.covers(at):
            row[token.token_id] = -np.inf
    for banned in entries_of(program, "text_suppress"):
        if banned.covers(at):
            row[set_of(text, {"text": banned.text}, VOCABULARY, bias=False)] = -np.inf
    return row


def forced_row(program: Program | None, output: list[int], row: Any) -> Any:
    """Return what the sampler sees of a controlled row."""
    forced = [] if program is None else entries_of(program, "force")
    if not forced or len(output) >= len(forced[0].token_ids):
        return row
    others = np.arange(len(row)) != forced[0].token_ids[len(output)]
    return np.where(others, -np.inf, row)


class Batch(RuleBasedStateMachine):
    """V1's persistent batch, and beside it what each row should be."""

    def __init__(self) -> None:
        super().__init__()
        self.processor = make_processor()
        self.rows: list[tuple[Program | None, list[int]]] = []
        self.preempted: list[tuple[Program | None, list[int]]] = []

    def _update(self, **changes: Any) -> None:
        update = {"removed": [], "added": [], "moved": [], **changes}
        self.processor.update_state(BatchUpdate(batch_size=len(self.rows), **update))

    def _added(self, program: Program | None, output: list[int]) -> Any:
        params = sampling_params(program_wire(program, VOCABULARY) if program else None)
        return (len(self.rows), params, [], output)

    @precondition(lambda self: len(self.rows) < ROWS)
    @rule(program=st.none() | PROGRAMS | FORCING)
    def add(self, program: Program | None) -> None:
        output: list[int] = []
        added = self._added(program, output)
        self.rows.append((program, output))
        self._update(added=[added])

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), preempt=st.booleans())
    def remove(self, data: st.DataObject, preempt: bool) -> None:
        """Remove a row; as vLLM condenses, the last row takes its place."""
        row = data.draw(st.integers(0, len(self.rows) - 1))
        last = len(self.rows) - 1
        gone = self.rows[row]
        self.rows[row] = self.rows[last]
        self.rows.pop()
        moved = [(last, row, MoveDirectionality.UNIDIRECTIONAL)] if row != last else []
        self._update(removed=[row], moved=moved)
        if preempt:
            self.preempted.append(gone)

    @precondition(lambda self: self.preempted and len(self.rows) < ROWS)
    @rule()
    def resume(self) -> None:
        program, output = self.preempted.pop()
        added = self._added(program, output)
        self.rows.append((program, output))
        self._update(added=[added])

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), program=st.none() | PROGRAMS | FORCING)
    def replace(self, data: st.DataObject, program: Program | None) -> None:
        """A new request takes the row of one that ended in the same step."""
        row = data.draw(st.integers(0, len(self.rows) - 1))
        output: list[int] = []
        _, params, prompt, _ = self._added(program, output)
        self.rows[row] = (program, output)
        self._update(added=[(row, params, prompt, output)])

    @precondition(lambda self: len(self.rows) > 1)
    @rule(data=st.data())
    def swap(self, data: st.DataObject) -> None:
        one, other = data.draw(
            st.lists(st.integers(0, len(self.rows) - 1), min_size=2, max_size=2, unique=True)
        )
        self.rows[one], self.rows[other] = self.rows[other], self.rows[one]
        self._update(moved=[(one, other, MoveDirectionality.SWAP)])

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def generate(self, data: st.DataObject) -> None:
        """A step: every row gets a token."""
        for _, output in self.rows:
            output.append(data.draw(st.integers(0, len(VOCABULARY) - 1)))
        self.processor.update_state(None)

    @invariant()
    def rows_are_as_they_should_be(self) -> None:
        if not self.rows:
            return
        logits = torch.arange(len(self.rows) * 8, dtype=torch.float32).reshape(-1, 8) / 7
        controlled = [
            naive_row(program, output, row)
            for (program, output), row in zip(self.rows, logits.numpy(), strict=True)
        ]
        wanted = [
            forced_row(program, output, row)
            for (program, output), row in zip(self.rows, controlled, strict=True)
        ]
        alone = logits[-1:].clone()
        got = self.processor.apply(logits)
        np.testing.assert_allclose(got.numpy(), np.stack(wanted), atol=1e-5)
        last = len(self.rows) - 1
        untouched = alone.clone()
        # What is told of a row knows nothing of force.
        again = self.processor.run_programs(alone, Layout(CPU).places([last]))
        np.testing.assert_allclose(again[0].numpy(), controlled[last], atol=1e-5)
        assert (alone == untouched).all()


Batch.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestBatch = Batch.TestCase


def test_a_row_without_any_token_left_is_not_alive() -> None:
    processor = make_processor()
    program = program_of(token_suppress=tuple(suppress_token(token) for token in range(8)))
    params, plain = sampling_params({"program": program.to_wire()}), sampling_params()
    added: Any = [(0, params, [], []), (1, plain, [], [])]
    processor.update_state(BatchUpdate(2, removed=[], added=added, moved=[]))
    processor.apply(torch.zeros(2, 8))
    assert processor.alive(Layout(CPU).places([0, 1])).tolist() == [EXHAUSTED, ALIVE]


GRAMMAR = SamplingParams(structured_outputs=StructuredOutputsParams(regex="a+"))
RAISED = program_of(token_bias=(bias_token(1, 2.0),)).to_wire()


@pytest.mark.parametrize(
    "neighbour", [None, SamplingParams(extra_args={"sensefield": {"program": RAISED}})]
)
def test_what_counts_as_exhausted_does_not_depend_on_neighbours(
    neighbour: SamplingParams | None,
) -> None:
    processor = make_processor()
    # Neither the second nor the third has a control; only the second one's masks are its own.
    each = [neighbour or SamplingParams(), GRAMMAR, SamplingParams()]
    added: Any = [(row, params, [], []) for row, params in enumerate(each)]
    processor.update_state(BatchUpdate(3, removed=[], added=added, moved=[]))
    logits = torch.zeros(3, 8)
    logits[1:] = -torch.inf
    processor.apply(logits)
    assert processor.alive(Layout(CPU).places([0, 1, 2])).tolist() == [ALIVE, EXHAUSTED, ALIVE]


def test_a_vector_that_is_not_here_ends_its_request_only() -> None:
    processor = make_processor()
    wire = {"steer_logits": [{"vector": "absent", "strength": 1.0}]}
    params, plain = sampling_params({"program": wire}), sampling_params()
    added: Any = [(0, params, [], []), (1, plain, [], [])]
    processor.update_state(BatchUpdate(2, removed=[], added=added, moved=[]))
    processor.apply(torch.zeros(2, 8))
    assert processor.alive(Layout(CPU).places([0, 1])).tolist() == [BROKEN, ALIVE]
