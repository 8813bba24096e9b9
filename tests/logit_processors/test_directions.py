"""The table of directions: rows outlive their vector for as long as a request holds them."""

from __future__ import annotations

import pytest
import torch

from logit_processors.directions import Directions
from tests.unit_support import same


def scores(value: float) -> torch.Tensor:
    return torch.full((4,), value)


def test_vectors_are_found_by_content() -> None:
    directions = Directions()
    directions.put("a", scores(1))
    directions.put("b", scores(2))
    assert ("a" in directions, "b" in directions, "c" in directions) == (True, True, False)
    assert len(directions) == 2
    assert same(directions.scores("b"), scores(2))
    row = directions.acquire("a")
    assert row is not None
    assert same(directions.table[row], scores(1))
    assert directions.acquire("c") is None


def test_content_never_changes() -> None:
    directions = Directions()
    directions.put("a", scores(1))
    directions.put("a", scores(9))
    assert len(directions) == 1
    assert same(directions.scores("a"), scores(1))


def test_a_table_that_never_was_says_so() -> None:
    with pytest.raises(LookupError, match="no steering vector"):
        _ = Directions().table


def test_the_table_grows_and_keeps_what_it_held() -> None:
    directions = Directions()
    for value in range(40):
        directions.put(str(value), scores(value))
    assert len(directions) == 40
    for value in range(40):
        assert same(directions.scores(str(value)), scores(value))


def test_a_dropped_vector_stays_for_those_that_hold_it() -> None:
    directions = Directions()
    directions.put("a", scores(1))
    held, again = directions.acquire("a"), directions.acquire("a")
    assert held is not None
    assert again == held
    directions.drop("a")
    assert "a" not in directions
    assert directions.acquire("a") is None
    for value in range(20):  # more than enough to take every free row
        directions.put(f"new {value}", scores(value))
    assert same(directions.table[held], scores(1))
    directions.release(held)
    directions.put("one more", scores(7))
    assert same(directions.table[held], scores(1))
    directions.release(held)
    rows = len(directions.table)
    while len(directions) < rows:
        directions.put(f"filler {len(directions)}", scores(8))
    assert not same(directions.table[held], scores(1))
    assert len(directions.table) == rows


def test_a_row_is_reused_as_soon_as_nobody_holds_it() -> None:
    directions = Directions()
    directions.put("a", scores(1))
    rows = len(directions.table)
    for value in range(5 * rows):
        directions.put(f"v{value}", scores(value))
        directions.drop(f"v{value}")
    assert len(directions.table) == rows
    directions.drop("never there")


def test_a_vector_put_again_while_the_old_is_held_gets_a_row_of_its_own() -> None:
    directions = Directions()
    directions.put("a", scores(1))
    old = directions.acquire("a")
    directions.drop("a")
    directions.put("a", scores(1))
    new = directions.acquire("a")
    assert old is not None
    assert new is not None
    assert new != old
    directions.release(old)
    directions.put("b", scores(2))
    assert same(directions.table[new], scores(1))


def test_a_vector_stays_until_every_process_that_put_it_has_dropped_it() -> None:
    directions = Directions()
    for holder in ("one", "other", "one"):
        directions.put("a", torch.zeros(4), holder)
    directions.drop("a", "one")
    assert "a" in directions
    directions.drop("a", "other")
    assert "a" not in directions
