"""The kernels that apply programs against torch's operations and values on paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from logit_processors.control import Phase, between
from logit_processors.directions import Directions
from logit_processors.program import Program
from tests.entries import bias_token, entries_of, program_of, steer_logits, suppress_token
from tests.unit_support import INF, KERNEL_DEVICE, pipeline_of, rows_of

pytestmark = pytest.mark.skipif(KERNEL_DEVICE is None, reason="no Triton here: see test_kernels")
# Around the kernels' block of 1024 tokens, and odd ones.
SIZES = st.sampled_from([4, 5, 1023, 1024, 1025, 2500])
WINDOWS = st.just(between()) | st.builds(between, st.integers(0, 3), st.none() | st.integers(4, 6))
TOKENS = st.integers(0, 3) | st.integers(0, 2499)
VECTORS = ("one", "two", "three")


@st.composite
def programs(draw: st.DrawFn, vocab: int) -> Program:
    """Draw entries that meet on few tokens, more of them than a kernel has lanes at times."""
    tokens = TOKENS.map(lambda token: token % vocab)
    most = draw(st.sampled_from([3, 3, 90]))
    bias = st.builds(bias_token, tokens, st.floats(-50, 50), WINDOWS)
    steer = st.builds(steer_logits, st.sampled_from(VECTORS), st.floats(-5, 5), WINDOWS)
    suppress = st.builds(suppress_token, tokens, WINDOWS)
    return program_of(
        token_bias=tuple(draw(st.lists(bias, min_size=most // 3, max_size=most))),
        steer=tuple(draw(st.lists(steer, max_size=5))),
        token_suppress=tuple(draw(st.lists(suppress, max_size=most))),
    )


def directions_of(vocab: int) -> Directions:
    """Return three random directions."""
    random = np.random.default_rng(vocab)
    directions = Directions()
    for name in VECTORS:
        scores = torch.from_numpy(random.standard_normal(vocab)).float()
        directions.put(name, scores.to(KERNEL_DEVICE or "cpu"))
    return directions


def applied(
    some: list[Program | None],
    logits: torch.Tensor,
    positions: list[int],
    *,
    kernels: bool = True,
    in_place: bool = False,
    slots_of_rows: list[int] | None = None,
) -> torch.Tensor:
    """Return ``[rows, vocab]`` after the programs of the rows' slots."""
    assert KERNEL_DEVICE is not None
    directions = directions_of(logits.shape[1])
    slots = pipeline_of(len(some), directions, device=KERNEL_DEVICE, kernels=kernels)
    for slot, program in enumerate(some):
        slots.set(slot, program)
    host_slots = np.array(range(len(some)) if slots_of_rows is None else slots_of_rows)
    given_logits = logits.to(KERNEL_DEVICE, copy=True)
    out = given_logits
    if not in_place:
        # Rubbish that must be gone, in rows of a larger tensor.
        out = torch.full((2 * len(logits), logits.shape[1]), np.nan, device=KERNEL_DEVICE)[::2]
    rows = rows_of(host_slots, positions, device=KERNEL_DEVICE)
    result = slots.apply(given_logits, rows, out=out)
    assert result is out
    assert in_place or torch.equal(given_logits.cpu(), logits)
    return result.cpu()


@settings(max_examples=60)
@given(
    st.data(),
    SIZES,
    st.integers(1, 3),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    st.booleans(),
)
def test_the_same_as_with_operations(
    data: st.DataObject, vocab: int, rows: int, dtype: torch.dtype, in_place: bool
) -> None:
    some = [data.draw(st.none() | programs(vocab)) for _ in range(rows)]
    positions = [data.draw(st.integers(0, 7)) for _ in range(rows)]
    random = np.random.default_rng(vocab + rows)
    values = random.normal(0, 5, (rows, vocab))
    values[random.random((rows, vocab)) < 0.2] = -np.inf  # as a grammar masks them
    logits = torch.from_numpy(values).to(torch.float32 if in_place else dtype)
    got = applied(some, logits, positions, in_place=in_place)
    expected = applied(some, logits, positions, kernels=False)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-4)
    assert (got[logits == -INF] == -INF).all()
    for row, program in enumerate(some):
        if program is None:
            assert torch.equal(got[row], logits[row].float())
            continue
        suppressed = entries_of(program, "token_suppress")
        gone = [e.token_id for e in suppressed if e.covers(positions[row])]
        assert (got[row, gone] == -INF).all()


def test_bias_steer_and_suppress_on_paper() -> None:
    program = program_of(
        token_bias=(
            bias_token(0, 1.0),
            bias_token(0, 0.5),
            bias_token(0, 2.0, between(2, 4)),
            bias_token(1, 100.0),
        ),
        token_suppress=(
            suppress_token(1),
            suppress_token(1, between(0, 9)),
            suppress_token(2, between(3)),
        ),
    )
    rows = applied([program] * 5, torch.full((5, 4), 8.0), [0, 1, 2, 3, 4])
    assert rows.tolist() == [
        [9.5, -INF, 8.0, 8.0],
        [9.5, -INF, 8.0, 8.0],
        [11.5, -INF, 8.0, 8.0],
        [11.5, -INF, -INF, 8.0],
        [9.5, -INF, -INF, 8.0],
    ]


@pytest.mark.parametrize("in_place", [False, True])
def test_steers_add_up_within_their_windows(in_place: bool) -> None:
    steer = (
        steer_logits("one", 2.0),
        steer_logits("two", -1.5, between(1)),
        steer_logits("one", 1.0, between(2, 3)),
        steer_logits("three", 0.0),
    )
    logits = torch.zeros(3, 2000)
    rows = applied([program_of(steer=steer)] * 3, logits, [0, 1, 2], in_place=in_place)
    directions = directions_of(2000)
    one, two = (directions.scores(name).cpu() for name in ("one", "two"))
    for row, expected in zip(
        rows, (2 * one, 2 * one - 1.5 * two, 3 * one - 1.5 * two), strict=True
    ):
        torch.testing.assert_close(row, expected, rtol=1e-6, atol=1e-6)


def test_opposite_steers_leave_a_row_as_it_was_to_the_bit() -> None:
    logits = torch.randn(1, 1500)
    program = program_of(steer=(steer_logits("one", 9.3), steer_logits("one", -9.3)))
    assert torch.equal(applied([program], logits, [0]), logits)


def test_rows_may_share_slots_in_any_order() -> None:
    logits = torch.zeros(4, 4)
    some: list[Program | None] = [
        program_of(token_bias=(bias_token(3, 1.0),)),
        program_of(token_suppress=(suppress_token(0),)),
    ]
    # Slot 2 is the one that stays empty.
    rows = applied(some, logits, [0] * 4, slots_of_rows=[1, 2, 0, 1])
    suppressed, biased = [-INF, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]
    assert rows.tolist() == [suppressed, [0.0] * 4, biased, suppressed]


def test_more_entries_than_lanes() -> None:
    program = program_of(
        token_bias=tuple(bias_token(token, float(token)) for token in range(1, 100))
    )
    row = applied([program, None], torch.zeros(2, 300), [0, 0])
    assert row[0].tolist() == [*map(float, range(100)), *[0.0] * 200]
    assert not row[1].any()


def test_a_suppressed_token_is_gone_whatever_its_logit() -> None:
    program = program_of(
        token_bias=(bias_token(0, 100.0), bias_token(1, -3.0)),
        token_suppress=tuple(suppress_token(token) for token in range(3)),
    )
    row = applied([program], torch.tensor([[INF, -INF, 3e38, 1.0]]), [0])
    assert row.tolist() == [[-INF, -INF, -INF, 1.0]]


@settings(max_examples=40)
@given(st.data(), SIZES, st.lists(st.integers(-2, 6), min_size=1, max_size=4))
def test_force_is_the_same_as_with_operations(
    data: st.DataObject, vocab: int, positions: list[int]
) -> None:
    assert KERNEL_DEVICE is not None
    tokens = st.lists(TOKENS.map(lambda token: token % vocab), max_size=6)
    forces = data.draw(st.lists(tokens, min_size=len(positions), max_size=len(positions)))
    host_slots = np.arange(len(forces))
    rows = torch.randn(len(forces), vocab)
    got = []
    for kernels in (True, False):
        slots = pipeline_of(len(forces), device=KERNEL_DEVICE, kernels=kernels)
        for slot, force in enumerate(forces):
            slots.set(slot, program_of(force=tuple(force)))
        logits = rows.to(KERNEL_DEVICE, copy=True)
        slots.apply(logits, rows_of(host_slots, positions, device=KERNEL_DEVICE), Phase.FORCE)
        got.append(logits.cpu())
    assert torch.equal(*got)
    for row, (force, position) in enumerate(zip(forces, positions, strict=True)):
        left = force[position : position + 1] if position >= 0 else []
        kept = [token for token in range(vocab) if got[0][row, token] > -INF]
        assert kept == (left or list(range(vocab)))
