"""Sums of vectors: worked out by hand, and the laws that they keep."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from service.vectors.combine import combine, orthogonalised

HIDDEN = 5
VALUES = arrays(np.float32, HIDDEN, elements=st.floats(-100, 100, width=32)).filter(
    lambda values: bool(np.abs(values).max() > 1e-3)
)
VECTORS = st.dictionaries(st.sampled_from(["layer.1", "layer.2", "layer.7"]), VALUES, min_size=1)
WEIGHTS = st.floats(-10, 10).filter(lambda weight: abs(weight) > 1e-3)


def floats(*values: float) -> Any:
    return np.array(values, np.float32)


def assert_close(left: Any, right: Any) -> None:
    for name in left.keys() | right.keys():
        zero = np.zeros(HIDDEN)
        assert left.get(name, zero) == pytest.approx(right.get(name, zero), rel=1e-4, abs=1e-2)


def test_a_weighted_sum_over_the_union_of_layers() -> None:
    one = {"layer.1": floats(1, 2), "layer.2": floats(3, 4)}
    two = {"layer.2": floats(10, 20), "layer.5": floats(-1, 1)}
    found = combine([(one, 2.0), (two, -0.5)])
    assert {name: values.tolist() for name, values in found.items()} == {
        "layer.1": [2, 4],
        "layer.2": [1, -2],
        "layer.5": [0.5, -0.5],
    }


def test_orthogonal_by_hand() -> None:
    # (3, 4) along (1, 0) is (3, 0); layers of the other alone play no part.
    one = {"layer.1": floats(3, 4), "layer.2": floats(1, 1)}
    other = {"layer.1": floats(2, 0), "layer.9": floats(1, 0)}
    found = combine([(one, 1.0)], other)
    assert {name: values.tolist() for name, values in found.items()} == {
        "layer.1": [0, 4],
        "layer.2": [1, 1],
    }


def test_what_cancels_is_left_out() -> None:
    one = {"layer.1": floats(0.1, 0.2), "layer.2": floats(1, 1)}
    assert list(combine([(one, 1.0), ({"layer.1": floats(0.1, 0.2)}, -1.0)])) == ["layer.2"]
    assert combine([(one, 0.0)]) == {}
    assert combine([(one, 3.0)], {name: -7 * values for name, values in one.items()}) == {}
    assert combine([(one, 0.7), (one, 0.1), (one, -0.8)]) == {}


@given(VALUES, VALUES)
def test_what_is_left_has_no_component_along_the_other(one: Any, other: Any) -> None:
    left = orthogonalised(one, other)
    size = float(np.linalg.norm(one)) * float(np.linalg.norm(other))
    assert abs(float(left @ other.astype(np.float64))) <= 1e-9 * size
    assert orthogonalised(left, other) == pytest.approx(left, abs=1e-9 * size)


@given(VECTORS, VECTORS, VECTORS, WEIGHTS, WEIGHTS, WEIGHTS, WEIGHTS)
def test_a_combination_of_combinations_is_one_combination(
    a: Any, b: Any, c: Any, p: float, q: float, r: float, s: float
) -> None:
    inner = combine([(a, p), (b, q)])
    assert_close(combine([(inner, r), (c, s)]), combine([(a, p * r), (b, q * r), (c, s)]))


@given(VECTORS, VECTORS, WEIGHTS, WEIGHTS)
def test_order_does_not_matter_and_one_part_is_itself(a: Any, b: Any, p: float, q: float) -> None:
    assert_close(combine([(a, p), (b, q)]), combine([(b, q), (a, p)]))
    alone = combine([(a, 1.0)])
    assert alone.keys() == a.keys()
    assert all((alone[name] == a[name]).all() for name in a)


@given(VECTORS, VECTORS, VECTORS, WEIGHTS, WEIGHTS)
def test_orthogonalising_is_linear_too(a: Any, b: Any, other: Any, p: float, q: float) -> None:
    apart = [(combine([(a, 1.0)], other), p), (combine([(b, 1.0)], other), q)]
    assert_close(combine([(a, p), (b, q)], other), combine(apart))
