"""Captures of a residual stream: means, single tokens, chunks, preemptions, and what fails.

On both kinds of buffers: see the last test of :mod:`tests.service.engine.residual.test_stream`.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.entries import capture_of, steer_residual
from tests.service.engine.residual.simulation import OWN, SIZE, Simulation


@pytest.mark.parametrize("chunks", [[9], [4, 5], [1] * 9])
def test_a_capture_is_the_mean_over_the_last_prompt_tokens(
    simulation: Simulation, chunks: list[int]
) -> None:
    steer = [steer_residual("a", 2.0)]
    name = simulation.start(steer, 9, capture_of("tag", 4))
    plain = simulation.start([], 3)
    for chunk in chunks:
        assert simulation.stream.fetch("tag") is None
        simulation.step([(plain, 2), (name, chunk)])
    simulation.step([(name, 1), (plain, 1)])
    expected = simulation.running[name].mean(4)
    simulation.end(name)
    fetched = simulation.stream.fetch("tag")
    assert fetched is not None
    assert fetched["layers"] == list(OWN)
    found = np.frombuffer(fetched["data"], np.float32).reshape(len(OWN), SIZE)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert simulation.stream.fetch("tag") is None


def test_a_capture_of_more_than_the_prompt_is_all_of_it(simulation: Simulation) -> None:
    name = simulation.start([], 2, capture_of("tag", 60, layers=(3, 4)))
    simulation.step([(name, 2)])
    fetched = simulation.stream.fetch("tag")
    assert fetched is not None
    assert fetched["layers"] == [3]
    found = np.frombuffer(fetched["data"], np.float32)
    np.testing.assert_allclose(found, simulation.running[name].mean(60)[1], rtol=1e-5, atol=1e-6)


def test_a_preempted_prompt_is_captured_once(simulation: Simulation) -> None:
    name = simulation.start([], 6, capture_of("tag", 4))
    simulation.step([(name, 4)])
    early = {token: simulation.running[name].seen[token].copy() for token in (2, 3)}
    simulation.preempt(name)
    simulation.step([(name, 6)])
    fetched = simulation.stream.fetch("tag")
    assert fetched is not None
    late = simulation.running[name].seen
    expected = (early[2] + early[3] + late[4] + late[5]) / 4
    found = np.frombuffer(fetched["data"], np.float32).reshape(len(OWN), SIZE)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("preempted", [False, True])
def test_each_token_of_a_capture_comes_in_its_place(
    simulation: Simulation, preempted: bool
) -> None:
    name = simulation.start([steer_residual("a", 2.0)], 9, capture_of("tag", 4, each=True))
    simulation.step([(name, 7)])
    early = [simulation.running[name].seen[token].copy() for token in (5, 6)]
    if preempted:
        simulation.preempt(name)
        simulation.step([(name, 4)])
        assert simulation.stream.fetch("tag") is None
        simulation.step([(name, 5)])
    else:
        simulation.step([(name, 2)])
    late = simulation.running[name].seen
    fetched = simulation.stream.fetch("tag")
    assert fetched is not None
    found = np.frombuffer(fetched["data"], np.float32).reshape(len(OWN), 4, SIZE)
    expected = np.stack([*early, late[7], late[8]], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_capture_that_finds_no_room_in_a_step_fails_alone(simulation: Simulation) -> None:
    names = [simulation.start([], 30, capture_of(f"tag {number}", 30)) for number in range(3)]
    small = simulation.start([], 4, capture_of("small", 4))
    simulation.step([*((name, 30) for name in names), (small, 4)])
    simulation.step([(names[2], 1)])
    for number in (0, 1):
        fetched = simulation.stream.fetch(f"tag {number}")
        assert fetched is not None
        expected = simulation.running[names[number]].mean(30)
        found = np.frombuffer(fetched["data"], np.float32).reshape(len(OWN), SIZE)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert simulation.stream.fetch("small") is not None
    with pytest.raises(ValueError, match="more than 64 tokens"):
        simulation.stream.fetch("tag 2")


def test_a_prompt_that_came_out_of_the_prefix_cache_fails_its_capture(
    simulation: Simulation,
) -> None:
    name = simulation.start([], 8, capture_of("tag", 4))
    simulation.running[name].computed = 6
    simulation.step([(name, 2)])
    simulation.end(name)
    with pytest.raises(ValueError, match="before all of its tokens"):
        simulation.stream.fetch("tag")


def test_captures_that_nobody_fetches_take_no_more_room_than_so_many_tokens(
    simulation: Simulation,
) -> None:
    for number in range(6):
        name = simulation.start([], 60, capture_of(f"tag {number}", 60, each=True))
        simulation.step([(name, 60)])
        simulation.end(name)
    kept = [simulation.stream.fetch(f"tag {number}") is not None for number in range(6)]
    assert kept == [False, False, True, True, True, True]


def test_captures_that_nobody_fetches_are_forgotten(simulation: Simulation) -> None:
    for number in range(300):
        name = simulation.start([], 1, capture_of(f"tag {number}"))
        simulation.step([(name, 1)])
        simulation.end(name)
    assert simulation.stream.fetch("tag 43") is None
    assert simulation.stream.fetch("tag 44") is not None
    assert simulation.stream.fetch("tag 299") is not None
