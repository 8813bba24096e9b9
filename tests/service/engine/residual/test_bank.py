"""The bank of vectors: fixed room, and rows that stay while anyone needs them."""

from __future__ import annotations

import pytest
import torch

from service.engine.residual.bank import Bank, bank_capacity

LAYERS = (4, 5, 6)


def bank(capacity: int = 3, dtype: torch.dtype = torch.float32) -> Bank:
    return Bank(capacity, LAYERS, 2, dtype, torch.device("cpu"))


def vector(value: float, layers: int = 3) -> torch.Tensor:
    return torch.full((layers, 2), value)


def test_a_vector_lies_at_the_layers_it_carries() -> None:
    made = bank()
    assert made.put("a", torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), [0, 6, 4])
    row = made.acquire("a")
    assert row is not None
    assert made.table[row].tolist() == [[5.0, 6.0], [0.0, 0.0], [3.0, 4.0]]
    assert made.carried(row) == {0, 4, 6}
    assert made.acquire("b") is None


def test_nothing_of_a_former_vector_stays_in_its_row() -> None:
    made = bank(capacity=1)
    assert made.put("a", vector(7.0), LAYERS)
    made.drop("a")
    assert made.put("b", vector(1.0, 1), [5])
    assert made.table[0].tolist() == [[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]


def test_content_never_changes() -> None:
    made = bank()
    made.put("a", vector(1.0), LAYERS)
    assert made.put("a", vector(9.0), LAYERS)
    assert len(made) == 1
    assert made.table.max() == 1.0


def test_a_full_bank_takes_what_it_has_and_no_more() -> None:
    made = bank()
    for name in "abc":
        made.put(name, vector(1.0), LAYERS)
    assert not made.put("d", vector(2.0), LAYERS)
    assert made.put("a", vector(1.0), LAYERS)
    made.drop("b")
    assert made.put("d", vector(2.0), LAYERS)
    assert [name in made for name in "abcd"] == [True, False, True, True]


def test_a_dropped_vector_stays_for_those_that_run_with_it() -> None:
    made = bank(capacity=2)
    made.put("a", vector(1.0), LAYERS)
    row, again = made.acquire("a"), made.acquire("a")
    assert row is not None
    assert row == again
    made.drop("a")
    assert made.acquire("a") is None
    assert made.put("b", vector(2.0), LAYERS)
    assert not made.put("c", vector(3.0), LAYERS)
    made.release(row)
    assert not made.put("c", vector(3.0), LAYERS)
    assert made.table[row].eq(1.0).all()
    made.release(row)
    assert made.put("c", vector(4.0), LAYERS)
    assert made.table[row].eq(4.0).all()
    made.drop("never there")


def test_a_vector_stays_until_every_process_that_put_it_has_dropped_it() -> None:
    made = bank()
    for holder in ("one", "other", "one"):
        made.put("a", vector(1.0), LAYERS, holder)
    made.drop("a", "one")
    assert "a" in made
    made.drop("a", "other")
    assert "a" not in made


@pytest.mark.parametrize(
    ("values", "layers", "message"),
    [
        (torch.zeros(2, 2), LAYERS, "shape"),
        (torch.zeros(3, 3), LAYERS, "shape"),
        (vector(1e5), LAYERS, "float16 cannot hold"),
        (vector(float("nan")), LAYERS, "cannot hold"),
        (vector(float("inf")), LAYERS, "cannot hold"),
    ],
)
def test_a_vector_that_cannot_be_is_refused(
    values: torch.Tensor, layers: tuple[int, ...], message: str
) -> None:
    made = bank(dtype=torch.float16)
    with pytest.raises(ValueError, match=message):
        made.put("a", values, layers)
    assert len(made) == 0


@pytest.mark.parametrize(
    ("bytes_each", "capacity"), [(1, 512), (1 << 20, 256), (1 << 23, 64), (0, 512)]
)
def test_capacity_follows_the_size_of_a_vector(bytes_each: int, capacity: int) -> None:
    assert bank_capacity(bytes_each) == capacity
