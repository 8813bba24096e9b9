"""What is needed is counted: by each who needs it, until the last one ends."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from service.vectors.leases import Leases


def test_needed_until_the_last_one_ends() -> None:
    leases = Leases()
    with leases.hold(["a", "b", "a"]):
        with leases.hold(["a"]):
            assert "a" in leases
        assert "a" in leases
        assert "b" in leases
        assert "c" not in leases
    assert "a" not in leases
    assert "b" not in leases


def test_an_error_ends_it_too() -> None:
    leases = Leases()
    with pytest.raises(KeyError), leases.hold(["a"]):
        raise KeyError
    assert "a" not in leases


@given(st.lists(st.tuples(st.booleans(), st.sets(st.sampled_from("abc")))))
def test_against_a_list_of_all_that_run(steps: list[tuple[bool, set[str]]]) -> None:
    leases = Leases()
    running: list[tuple[ExitStack, set[str]]] = []
    for begins, contents in steps:
        if begins or not running:
            stack = ExitStack()
            stack.enter_context(leases.hold(contents))
            running.append((stack, contents))
        else:
            running.pop(0)[0].close()
        needed = {each for _, held in running for each in held}
        assert {each for each in "abc" if each in leases} == needed


def test_the_metric_comes_back_to_what_it_was() -> None:
    def counted() -> float:
        return REGISTRY.get_sample_value("sensefield_vector_leases") or 0.0

    before, leases = counted(), Leases()
    with leases.hold(["a", "b", "a"]), leases.hold(["a"]):
        assert counted() == before + 3
    assert counted() == before
