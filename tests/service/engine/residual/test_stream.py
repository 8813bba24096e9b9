"""Steps of a residual stream against a naive model of every token, on both kinds of buffers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from logit_processors.controls.steer import SteerEntry
from logit_processors.residual import Capture
from service.engine.residual import host
from tests.entries import capture_of, span, steer_residual
from tests.integration.servers import REPOSITORY, V2_ENVIRONMENT
from tests.service.engine.residual.simulation import (
    INTERPRETED,
    OWN,
    ROWS,
    SIZE,
    VECTORS,
    Simulation,
)

SPANS = st.sampled_from(
    [span(), span(0), span(None, 1), span(-3, 2), span(1, 3), span(-9, -2), span(0, 1)]
)
STRENGTHS = st.sampled_from([0.0, 1.0, -1.0, 0.5, -2.25, 100.0])
DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])


@st.composite
def entries(draw: st.DrawFn) -> SteerEntry:
    """Draw an entry of a vector at layers that it carries."""
    name = draw(st.sampled_from(sorted(VECTORS)))
    layers = draw(st.none() | st.sets(st.sampled_from(VECTORS[name]), min_size=1))
    named = None if layers is None else tuple(sorted(layers))
    return steer_residual(name, draw(STRENGTHS), named, draw(SPANS))


CAPTURES = st.none() | st.builds(capture_of, st.sampled_from(["x", "y"]), st.integers(1, 5))


class Engine(RuleBasedStateMachine):
    """Requests come, are processed in chunks, are preempted, generate and go."""

    def __init__(self) -> None:
        super().__init__()
        self.simulation: Simulation | None = None

    @precondition(lambda self: self.simulation is None)
    @rule(dtype=DTYPES, seed=st.integers(0, 99))
    def begin(self, dtype: torch.dtype, seed: int) -> None:
        self.simulation = Simulation(dtype, capacity=20, seed=seed)

    @precondition(lambda self: self.simulation and len(self.simulation.running) < 2 * ROWS)
    @rule(
        steer=st.lists(entries(), max_size=4),
        prompt_len=st.integers(1, 9),
        capture=CAPTURES,
    )
    def start(self, steer: list[SteerEntry], prompt_len: int, capture: Capture | None) -> None:
        assert self.simulation is not None
        self.simulation.start(steer, prompt_len, capture)

    @precondition(lambda self: self.simulation and self.simulation.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        assert self.simulation is not None
        self.simulation.end(data.draw(st.sampled_from(sorted(self.simulation.running))))

    @precondition(lambda self: self.simulation and self.simulation.running)
    @rule(data=st.data())
    def preempt(self, data: st.DataObject) -> None:
        assert self.simulation is not None
        self.simulation.preempt(data.draw(st.sampled_from(sorted(self.simulation.running))))

    @precondition(lambda self: self.simulation is not None)
    @rule(name=st.sampled_from(sorted(VECTORS)))
    def replace_a_vector(self, name: str) -> None:
        """The name gets other content: running requests keep what they started with."""
        assert self.simulation is not None
        if len(self.simulation.stream.bank.table) - len(self.simulation.stream.bank) > 9:
            self.simulation.drop(name)
            self.simulation.put(name, VECTORS[name])

    @precondition(lambda self: self.simulation and self.simulation.running)
    @rule(data=st.data(), padding=st.integers(0, 3))
    def step(self, data: st.DataObject, padding: int) -> None:
        assert self.simulation is not None
        names = sorted(self.simulation.running)
        present = data.draw(
            st.lists(st.sampled_from(names), min_size=1, max_size=ROWS, unique=True)
        )
        work = [(name, data.draw(st.integers(1, 6))) for name in present]
        self.simulation.step(work, padding)


Engine.TestCase.settings = settings(max_examples=8 if INTERPRETED else 60, stateful_step_count=20)
TestEngine = Engine.TestCase


@pytest.mark.parametrize(
    ("steer", "same"),
    [
        ([steer_residual("a", 0.0)], []),
        ([steer_residual("a", 9.3), steer_residual("a", -9.3)], []),
        ([steer_residual("a", 9.3), steer_residual("a", -9.3, layers=OWN)], []),
        ([steer_residual("a", 0.35), steer_residual("a", 0.35)], [steer_residual("a", 0.7)]),
        (
            [steer_residual("a", 0.7, when=span(None, 0)), steer_residual("a", 0.7, when=span(0))],
            [steer_residual("a", 0.7)],
        ),
    ],
    ids=["none", "opposite", "opposite at named layers", "two halves", "two windows"],
)
def test_identities_hold_to_the_bit(
    simulation: Simulation, steer: list[SteerEntry], same: list[SteerEntry]
) -> None:
    hidden = torch.randn(4, SIZE)
    results = []
    for program in (steer, same):
        name = simulation.start(program, 3)
        layout = simulation.layout([(name, 4)], 4)
        simulation.stream.begin_step(layout)
        results.append(hidden.clone())
        simulation.stream.buffers.apply(results[-1], None, torch.tensor([1], dtype=torch.int32))
        simulation.stream.end_step()
        simulation.end(name)
    assert (results[0] == results[1]).all()
    assert (results[1] == hidden).all() == (not same)


@pytest.mark.parametrize(
    "steer",
    [
        [steer_residual("absent", 1.0)],
        [steer_residual("a", 1.0), steer_residual("absent", 1.0)],
        [steer_residual("c", 1.0, layers=(3,))],
    ],
    ids=["absent", "one of two absent", "a layer it does not carry"],
)
def test_a_request_that_cannot_be_steered_is_broken_and_left_alone(
    simulation: Simulation, steer: list[SteerEntry]
) -> None:
    plain = simulation.start([], 3)
    broken = simulation.start(steer, 3)
    whole = simulation.start([steer_residual("a", 1.0)], 3)
    simulation.running[broken].wanted = simulation.running[plain].wanted
    simulation.step([(plain, 3), (broken, 3), (whole, 3)])
    assert simulation.stream.broken_rows == {1}
    simulation.step([(broken, 1), (plain, 1)])
    assert simulation.stream.broken_rows == {0}
    simulation.end(broken)
    simulation.step([(plain, 1), (whole, 1)])
    assert simulation.stream.broken_rows == set()


@pytest.mark.parametrize("kept", [0, 256])
@pytest.mark.parametrize("long", [1, 99])
def test_additions_are_the_same_in_whatever_way_they_are_made(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch, kept: int, long: int
) -> None:
    monkeypatch.setattr(host, "_GATHERED", kept)
    monkeypatch.setattr(host, "_LONG", long)
    entries = [
        [steer_residual("a", 1.0)],
        [],
        [steer_residual("b", -2.0)],
        [steer_residual("a", 1.0)],
    ]
    names = [simulation.start(entry, 3) for entry in entries]
    for count in (3, 1, 1):
        simulation.step([(name, count) for name in names])


def test_a_layer_that_never_calls_the_op_breaks_those_who_would_steer(
    simulation: Simulation,
) -> None:
    simulation.stream.unseen.add(1234)
    plain, steered = simulation.start([], 2), simulation.start([steer_residual("a", 1.0)], 2)
    simulation.step([(plain, 2), (steered, 2)])
    assert simulation.stream.broken_rows == {1}
    assert "something else" in (simulation.stream.support.reason or "")
    with pytest.raises(ValueError, match="cannot be captured"):
        simulation.stream.fetch("tag")
    late = simulation.start([steer_residual("a", 1.0)], 2)
    simulation.running[late].wanted = simulation.running[plain].wanted
    simulation.step([(plain, 1), (late, 2)])
    assert simulation.stream.broken_rows == {1}


def test_vectors_are_let_go_when_their_requests_end(simulation: Simulation) -> None:
    bank, full = simulation.stream.bank, torch.zeros(len(OWN), SIZE)
    names = [simulation.start([steer_residual(v, 1.0)], 2) for v in ("a", "b", "c")]
    for vector in ("a", "b", "c"):
        bank.drop(vector)
    room = len(bank.table) - len(bank) - len(names)
    assert all(bank.put(f"new {number}", full, OWN) for number in range(room))
    assert not bank.put("one more", full, OWN)
    simulation.step([(name, 2) for name in names])
    for name in names:
        simulation.end(name)
    assert [bank.put(f"last {number}", full, OWN) for number in range(4)] == [True] * 3 + [False]


BOTH = [str(Path(__file__).with_name(name)) for name in ("test_stream.py", "test_captures.py")]


@pytest.mark.skipif(INTERPRETED, reason="this is the child")
def test_the_kernel_does_the_same_under_tritons_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *BOTH]
    child = subprocess.run(
        command,
        cwd=REPOSITORY,
        env={**os.environ, **V2_ENVIRONMENT},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stdout[-4000:] + child.stderr[-2000:]
