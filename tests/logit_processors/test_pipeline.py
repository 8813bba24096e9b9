"""A batch is what its rows are alone, and a slot keeps nothing of its last request."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from numpy.typing import NDArray

from logit_processors.control import ALWAYS, Phase, between
from logit_processors.directions import Directions
from logit_processors.kernels import has_kernels
from logit_processors.program import Program
from logit_processors.row_spec import BROKEN
from logit_processors.slot_lists import EntryTable
from tests.entries import (
    bias_text,
    bias_token,
    entries_of,
    program_of,
    steer_logits,
    suppress_text,
    suppress_token,
)
from tests.unit_support import CPU, FOUR, INF, compiled_of, pipeline_of, rows_of, run_programs, same

KERNELS = has_kernels(CPU)
"""Whether Triton's interpreter applies the programs: it takes its time."""
VOCAB = 4
SLOTS = 3
VECTORS = {
    name: np.array(scores, np.float32)
    for name, scores in {
        "one": [1, -1, 1, -1],
        "two": [-1.5, 0.5, 0.5, 0.5],
        "three": [0, 2, -2, 0],
    }.items()
}
# Quarters and small numbers add up without rounding: sums can be compared exactly.
amounts = st.integers(-40, 40).map(lambda n: n / 4)
windows = st.builds(between, st.integers(0, 2), st.none() | st.integers(3, 5)) | st.just(ALWAYS)
token_ids = st.integers(0, VOCAB - 1)
texts = st.text("ab ", min_size=1, max_size=3)
token_programs = st.builds(
    program_of,
    token_bias=st.lists(st.builds(bias_token, token_ids, amounts, windows), max_size=9).map(tuple),
    steer=st.lists(
        st.builds(steer_logits, st.sampled_from([*VECTORS, "unknown"]), amounts, windows),
        max_size=5,
    ).map(tuple),
    token_suppress=st.lists(st.builds(suppress_token, token_ids, windows), max_size=3).map(tuple),
)
programs = st.builds(
    program_of,
    token_bias=st.lists(st.builds(bias_token, token_ids, amounts, windows), max_size=6).map(tuple),
    text_bias=st.lists(
        st.builds(bias_text, texts, amounts, st.booleans(), windows), max_size=2
    ).map(tuple),
    token_suppress=st.lists(st.builds(suppress_token, token_ids, windows), max_size=2).map(tuple),
    text_suppress=st.lists(st.builds(suppress_text, texts, st.booleans(), windows), max_size=2).map(
        tuple
    ),
    steer=st.lists(
        st.builds(steer_logits, st.sampled_from([*VECTORS]), amounts, windows), max_size=2
    ).map(tuple),
)


def all_directions() -> Directions:
    directions = Directions()
    for name, scores in VECTORS.items():
        directions.put(name, torch.from_numpy(scores))
    return directions


@settings(max_examples=30 if KERNELS else 300)
@given(
    st.lists(
        st.tuples(st.none() | programs, st.lists(token_ids, max_size=5)), min_size=1, max_size=4
    )
)
def test_a_row_in_a_batch_is_the_row_alone(
    requests: list[tuple[Program | None, list[int]]],
) -> None:
    logits = torch.arange(len(requests) * VOCAB).reshape(len(requests), VOCAB) / 8
    some, outputs = zip(*requests, strict=True)
    together = run_programs(some, logits, outputs, FOUR, all_directions())
    for row, (program, output) in enumerate(requests):
        alone = run_programs([program], logits[row : row + 1], [output], FOUR, all_directions())
        assert same(together[row : row + 1], alone)
        if program is None:
            assert same(together[row], logits[row])


class SlotsMachine(RuleBasedStateMachine):
    """Requests come and go, vectors too, and logits are always what a plain loop says."""

    def __init__(self) -> None:
        super().__init__()
        self.directions = Directions()
        self.slots = pipeline_of(SLOTS, self.directions)
        self.put_now: set[str] = set()
        self.running: dict[int, tuple[Program, set[str]]] = {}

    @rule(name=st.sampled_from([*VECTORS]))
    def put(self, name: str) -> None:
        self.directions.put(name, torch.from_numpy(VECTORS[name]))
        self.put_now.add(name)

    @rule(name=st.sampled_from([*VECTORS, "unknown"]))
    def drop(self, name: str) -> None:
        self.directions.drop(name)
        self.put_now.discard(name)

    @rule(count=st.integers(1, 9))
    def fill(self, count: int) -> None:
        # Other vectors take every row that seems free, and leave rubbish in it.
        for at in range(count):
            self.directions.put(f"filler {at}", torch.full((VOCAB,), 1e6))
        for at in range(count):
            self.directions.drop(f"filler {at}")

    @rule(slot=st.integers(0, SLOTS - 1), program=token_programs)
    def start(self, slot: int, program: Program) -> None:
        self.slots.set(slot, program)
        self.running[slot] = program, program.vectors(Phase.ADD) & self.put_now

    @rule(slot=st.integers(0, SLOTS - 1))
    def stop(self, slot: int) -> None:
        self.slots.set(slot, None)
        self.running.pop(slot, None)

    def expected(self, slot: int, position: int) -> NDArray[np.float64]:
        row = np.arange(VOCAB, dtype=np.float64)
        program, vectors = self.running.get(slot, (program_of(), set()))
        for bias in entries_of(program, "token_bias"):
            row[bias.token_id] += bias.add * bias.covers(position)
        for steer in entries_of(program, "steer_logits"):
            if steer.vector in vectors:
                row += steer.strength * VECTORS[steer.vector] * steer.covers(position)
        for suppress in entries_of(program, "token_suppress"):
            if suppress.covers(position):
                row[suppress.token_id] = -INF
        return row

    @invariant()
    def logits_are_those_of_a_plain_loop(self) -> None:
        # The slot beyond the last stays empty; a slot may have several rows, or none.
        rows = np.array([SLOTS, *range(SLOTS), 0])
        for position in (0, 2, 4):
            logits = torch.arange(VOCAB, dtype=torch.float32).repeat(len(rows), 1)
            self.slots.apply(logits, rows_of(rows, [position] * len(rows)))
            for slot, row in zip(rows.tolist(), logits, strict=True):
                assert row.tolist() == self.expected(slot, position).tolist()

    @invariant()
    def only_a_missing_vector_breaks_a_slot(self) -> None:
        for slot in range(SLOTS + 1):
            program, vectors = self.running.get(slot, (program_of(), set()))
            missing = not program.vectors(Phase.ADD) <= vectors
            assert bool(self.slots.status[slot] == BROKEN) is missing


SlotsMachine.TestCase.settings = settings(
    max_examples=10 if KERNELS else 150, stateful_step_count=15
)
TestSlots = SlotsMachine.TestCase


@pytest.mark.parametrize("count", [0, 1, 4, 5, 8, 9, 33])
def test_a_table_widens_for_the_longest_list(count: int) -> None:
    table = EntryTable(2, CPU)
    table.put(1, [(7, 0.5, ALWAYS.bounds)])
    table.put(0, [(at, at / 4, (at, at + 2)) for at in range(count)])
    table.flush()
    ids, values, active = table.at(torch.tensor([0, 1]), torch.tensor([3, 3]))
    applying = set(zip(ids[0][active[0]].tolist(), values[0][active[0]].tolist(), strict=True))
    assert applying == {(at, at / 4) for at in (2, 3) if at < count}
    assert ids[1][active[1]].tolist() == [7]
    assert table.used.tolist() == [count > 0, True]


@pytest.mark.parametrize("longest", [9, 1024])
def test_a_table_is_as_wide_as_the_longest_list_that_is_there(longest: int) -> None:
    table = EntryTable(2, CPU)
    table.put(0, [(3, 1.0, ALWAYS.bounds)] * 5)
    table.put(1, [(7, 0.5, ALWAYS.bounds)] * longest)
    table.flush()
    assert table.width >= longest
    table.put(1, [])
    table.flush()
    ids, values, active = table.at(torch.tensor([0, 1]), torch.tensor([3, 3]))
    assert ids.shape == values.shape == active.shape == (2, 8)
    assert active.sum(dim=1).tolist() == [5, 0]
    assert ids[active].tolist() == [3] * 5


def test_a_shorter_list_leaves_nothing_of_a_longer_one() -> None:
    table = EntryTable(1, CPU)
    table.put(0, [(at, 1.0, ALWAYS.bounds) for at in range(6)])
    table.put(0, [(9, 2.0, ALWAYS.bounds)])
    table.flush()
    ids, values, active = table.at(torch.tensor([0]), torch.tensor([0]))
    assert ids[active].tolist() == [9]
    assert values[active].tolist() == [2.0]
    table.put(0, [])
    table.flush()
    assert not table.at(torch.tensor([0]), torch.tensor([0]))[2].any()
    assert not table.used.any()


def test_rows_whose_slots_only_the_device_knows_get_the_same() -> None:
    # V2 names the slots in use on the host; which row has which is on the device.
    directions = all_directions()
    slots = pipeline_of(2, directions)
    slots.set(0, program_of(steer=(steer_logits("one", 2.0),)))
    slots.set(1, program_of(token_bias=(bias_token(1, 3.0),), token_suppress=(suppress_token(0),)))
    rows = rows_of([2, 1, 0, 0, 1], [0] * 5)
    exact = slots.apply(torch.zeros(5, VOCAB), rows)
    from_device = slots.apply(torch.zeros(5, VOCAB), replace(rows, host_slots=np.array([0, 1])))
    assert same(from_device, exact)


@pytest.mark.parametrize("kernels", [False, True] if KERNELS else [False])
def test_suppression_comes_after_what_adds_and_force_last(kernels: bool) -> None:
    slots = pipeline_of(1, all_directions(), kernels=kernels)
    program = program_of(
        token_bias=(bias_token(0, 1.0), bias_token(3, 50.0)),
        steer=(steer_logits("one", 1.0),),
        text_bias=(bias_text("b", 2.0),),
        token_suppress=(suppress_token(3),),
        force=(1,),
    )
    slots.set(0, program, compiled_of(program))
    rows, logits = rows_of([0], [0]), torch.zeros(1, VOCAB)
    controlled = [[2.0, 1.0, 3.0, -INF]]
    assert slots.apply(logits, rows, out=torch.full((1, VOCAB), INF)).tolist() == controlled
    assert not logits.any(), "the logits themselves stay as they are"
    assert slots.apply(logits.clone(), rows).tolist() == controlled
    assert slots.apply(logits, rows, Phase.FORCE).tolist() == [[-INF, 1.0, -INF, -INF]]


def test_a_slot_lets_go_of_the_vectors_of_its_last_request() -> None:
    directions = Directions()
    slots = pipeline_of(1, directions)
    directions.put("first", torch.from_numpy(VECTORS["one"]))
    rows = len(directions.table)
    for number in range(2 * rows):
        directions.put(f"{number}", torch.from_numpy(VECTORS["two"]))
        slots.set(0, program_of(steer=(steer_logits(f"{number}", 1.0),)))
        directions.drop(f"{number}")
    slots.set(0, None)
    assert len(directions.table) == rows, "rows that nothing holds are not used again"


def test_slots_hold_what_their_programs_are_made_of() -> None:
    slots = pipeline_of(2, all_directions())
    steered = program_of(
        text_bias=(bias_text("one", 1.0),),
        text_suppress=(suppress_text("é"),),
        steer=(steer_logits("one", 1.0), steer_logits("unknown", 1.0)),
    )
    slots.set(0, steered, compiled_of(steered))
    slots.set(1, program_of(token_bias=(bias_token(0, 1.0),)))
    assert slots.held() == {"programs": 2, "pattern_bytes": 5, "vectors": 1}
    for slot in range(2):
        slots.set(slot, None)
    assert slots.held() == {"programs": 0, "pattern_bytes": 0, "vectors": 0}
