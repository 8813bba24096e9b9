"""Slots: a batch is what its rows are alone, and a slot keeps nothing of its last request."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from numpy.typing import NDArray

from logit_processors.controls import (
    ALWAYS,
    Steer,
    TextBias,
    TextSuppress,
    TokenBias,
    TokenSuppress,
    Window,
)
from logit_processors.directions import Directions
from logit_processors.entries import EntryTable
from logit_processors.kernels import has_kernels
from logit_processors.program import Program
from logit_processors.slots import Slots
from tests.unit_support import CPU, FOUR, INF, apply_slots, run_programs, same

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
windows = st.builds(Window, st.integers(0, 2), st.none() | st.integers(3, 5)) | st.just(ALWAYS)
token_ids = st.integers(0, VOCAB - 1)
texts = st.text("ab ", min_size=1, max_size=3)
token_programs = st.builds(
    Program,
    token_bias=st.lists(st.builds(TokenBias, token_ids, amounts, windows), max_size=9).map(tuple),
    steer=st.lists(
        st.builds(Steer, st.sampled_from([*VECTORS, "unknown"]), amounts, windows), max_size=5
    ).map(tuple),
    token_suppress=st.lists(st.builds(TokenSuppress, token_ids, windows), max_size=3).map(tuple),
)
programs = st.builds(
    Program,
    token_bias=st.lists(st.builds(TokenBias, token_ids, amounts, windows), max_size=6).map(tuple),
    text_bias=st.lists(st.builds(TextBias, texts, amounts, st.booleans(), windows), max_size=2).map(
        tuple
    ),
    token_suppress=st.lists(st.builds(TokenSuppress, token_ids, windows), max_size=2).map(tuple),
    text_suppress=st.lists(st.builds(TextSuppress, texts, st.booleans(), windows), max_size=2).map(
        tuple
    ),
    steer=st.lists(st.builds(Steer, st.sampled_from([*VECTORS]), amounts, windows), max_size=2).map(
        tuple
    ),
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
        self.slots = Slots(SLOTS, CPU, self.directions)
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
        self.running[slot] = program, {e.vector for e in program.steer} & self.put_now

    @rule(slot=st.integers(0, SLOTS - 1))
    def stop(self, slot: int) -> None:
        self.slots.set(slot, None)
        self.running.pop(slot, None)

    def expected(self, slot: int, position: int) -> NDArray[np.float64]:
        row = np.arange(VOCAB, dtype=np.float64)
        program, vectors = self.running.get(slot, (Program(), set()))
        for bias in program.token_bias:
            row[bias.token_id] += bias.add * bias.when.covers(position)
        for steer in program.steer:
            if steer.vector in vectors:
                row += steer.strength * VECTORS[steer.vector] * steer.when.covers(position)
        for suppress in program.token_suppress:
            if suppress.when.covers(position):
                row[suppress.token_id] = -INF
        return row

    @invariant()
    def logits_are_those_of_a_plain_loop(self) -> None:
        # The slot beyond the last stays empty; a slot may have several rows, or none.
        rows = np.array([SLOTS, *range(SLOTS), 0])
        for position in (0, 2, 4):
            logits = torch.arange(VOCAB, dtype=torch.float32).repeat(len(rows), 1)
            apply_slots(self.slots, logits, rows, [position] * len(rows))
            for slot, row in zip(rows.tolist(), logits, strict=True):
                assert row.tolist() == self.expected(slot, position).tolist()

    @invariant()
    def only_a_missing_vector_breaks_a_slot(self) -> None:
        for slot in range(SLOTS + 1):
            program, vectors = self.running.get(slot, (Program(), set()))
            missing = any(entry.vector not in vectors for entry in program.steer)
            assert bool(self.slots.broken[slot]) is missing


SlotsMachine.TestCase.settings = settings(
    max_examples=10 if KERNELS else 150, stateful_step_count=15
)
TestSlots = SlotsMachine.TestCase


@pytest.mark.parametrize("count", [0, 1, 4, 5, 8, 9, 33])
def test_a_table_widens_for_the_longest_list(count: int) -> None:
    table = EntryTable(2, CPU)
    table.write(1, [(7, 0.5, ALWAYS)])
    table.write(0, [(at, at / 4, Window(at, at + 2)) for at in range(count)])
    ids, values, active = table.at(torch.tensor([0, 1]), torch.tensor([3, 3]))
    applying = set(zip(ids[0][active[0]].tolist(), values[0][active[0]].tolist(), strict=True))
    assert applying == {(at, at / 4) for at in (2, 3) if at < count}
    assert ids[1][active[1]].tolist() == [7]
    assert table.used.tolist() == [count > 0, True]


@pytest.mark.parametrize("longest", [9, 1024])
def test_a_table_is_as_wide_as_the_longest_list_that_is_there(longest: int) -> None:
    table = EntryTable(2, CPU)
    table.write(0, [(3, 1.0, ALWAYS)] * 5)
    table.write(1, [(7, 0.5, ALWAYS)] * longest)
    assert table.ids.shape[1] >= longest
    table.write(1, [])
    ids, values, active = table.at(torch.tensor([0, 1]), torch.tensor([3, 3]))
    assert ids.shape == values.shape == active.shape == (2, 8)
    assert active.sum(dim=1).tolist() == [5, 0]
    assert ids[active].tolist() == [3] * 5


def test_a_shorter_list_leaves_nothing_of_a_longer_one() -> None:
    table = EntryTable(1, CPU)
    table.write(0, [(at, 1.0, ALWAYS) for at in range(6)])
    table.write(0, [(9, 2.0, ALWAYS)])
    ids, values, active = table.at(torch.tensor([0]), torch.tensor([0]))
    assert ids[active].tolist() == [9]
    assert values[active].tolist() == [2.0]
    table.write(0, [])
    assert not table.at(torch.tensor([0]), torch.tensor([0]))[2].any()
    assert not table.used.any()


def test_rows_whose_slots_only_the_device_knows_get_the_same() -> None:
    # V2 names the slots in use on the host; which row has which is on the device.
    directions = all_directions()
    slots = Slots(2, CPU, directions)
    slots.set(0, Program(steer=(Steer("one", 2.0),)))
    slots.set(1, Program(token_bias=(TokenBias(1, 3.0),), token_suppress=(TokenSuppress(0),)))
    on_device = torch.tensor([2, 1, 0, 0, 1])
    positions = torch.zeros(5, dtype=torch.int64)
    exact = apply_slots(slots, torch.zeros(5, VOCAB), on_device.numpy(), [0] * 5)
    from_device = torch.zeros(5, VOCAB)

    class NoText:
        def apply_bias(self, logits: torch.Tensor) -> None: ...

        def apply_suppress(self, logits: torch.Tensor) -> None: ...

    slots.apply(from_device, np.array([0, 1]), on_device, positions, NoText())
    assert same(from_device, exact)


def test_controls_run_as_bias_then_steer_then_suppress() -> None:
    order: list[str] = []
    logits = torch.zeros(1, VOCAB)

    class Text:
        def apply_bias(self, logits: torch.Tensor) -> None:
            order.append(f"bias {logits.tolist()}")

        def apply_suppress(self, logits: torch.Tensor) -> None:
            order.append(f"suppress {logits.tolist()}")

    slots = Slots(1, CPU, all_directions(), kernels=False)
    program = Program(
        token_bias=(TokenBias(0, 1.0),),
        steer=(Steer("one", 1.0),),
        token_suppress=(TokenSuppress(3),),
    )
    slots.set(0, program)
    zero = np.array([0])
    slots.apply(logits, zero, torch.from_numpy(zero), torch.tensor([0]), Text())
    assert order == ["bias [[1.0, 0.0, 0.0, 0.0]]", "suppress [[2.0, -1.0, 1.0, -inf]]"]


def test_a_slot_lets_go_of_the_vectors_of_its_last_request() -> None:
    directions = Directions()
    slots = Slots(1, CPU, directions)
    directions.put("first", torch.from_numpy(VECTORS["one"]))
    rows = len(directions.table)
    for number in range(2 * rows):
        directions.put(f"{number}", torch.from_numpy(VECTORS["two"]))
        slots.set(0, Program(steer=(Steer(f"{number}", 1.0),)))
        directions.drop(f"{number}")
    slots.set(0, None)
    assert len(directions.table) == rows, "rows that nothing holds are not used again"


def test_slots_hold_what_their_programs_are_made_of() -> None:
    slots = Slots(2, CPU, all_directions())
    steered = Program(
        text_bias=(TextBias("one", 1.0),),
        text_suppress=(TextSuppress("é"),),
        steer=(Steer("one", 1.0), Steer("unknown", 1.0)),
    )
    slots.set(0, steered)
    slots.set(1, Program(token_bias=(TokenBias(0, 1.0),)))
    assert slots.held() == {"programs": 2, "pattern_bytes": 5, "vectors": 1}
    for slot in range(2):
        slots.set(slot, None)
    assert slots.held() == {"programs": 0, "pattern_bytes": 0, "vectors": 0}
