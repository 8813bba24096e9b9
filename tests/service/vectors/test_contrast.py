"""Directions of contrasts, by hand and by their identities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from service.vectors.contrast import METHODS, mean_difference, principal_difference

Streams = NDArray[np.float64]
STREAMS = arrays(np.float64, (3, 2, 4), elements=st.floats(-100, 100, width=32))


def test_the_difference_of_means_by_hand() -> None:
    positive = np.array([[[1.0, 0.0], [2.0, 2.0]], [[3.0, 0.0], [4.0, 2.0]]])
    negative = np.array([[[1.0, 1.0], [0.0, 0.0]]])
    assert mean_difference(positive, negative).tolist() == [[1.0, -1.0], [3.0, 2.0]]


def test_the_principal_axis_by_hand() -> None:
    """Differences (3, 0), (1, 0), (0, 0.5), (0, -0.5): the first axis, 1 long on average."""
    positive = np.array([[[3.0, 0.0]], [[1.0, 0.0]], [[0.0, 0.5]], [[0.0, -0.5]]])
    found = principal_difference(positive, np.zeros_like(positive))
    np.testing.assert_allclose(found, [[1.0, 0.0]], atol=1e-12)


def test_what_all_pairs_share_counts() -> None:
    """Centred differences would only show how the pairs scatter, across what they share."""
    positive = np.array([[[5.0, 1.0]], [[5.0, -1.0]]])
    found = principal_difference(positive, np.zeros_like(positive))
    np.testing.assert_allclose(found, [[5.0, 0.0]], atol=1e-12)


def test_one_pair_is_its_difference() -> None:
    rng = np.random.default_rng(1)
    positive, negative = rng.standard_normal((2, 1, 3, 8))
    for method in METHODS.values():
        np.testing.assert_allclose(method(positive, negative), (positive - negative)[0])


@pytest.mark.parametrize("name", METHODS)
@given(STREAMS, STREAMS)
def test_turned_sides_turn_the_vector(name: str, positive: Streams, negative: Streams) -> None:
    method = METHODS[name]
    there, back = method(positive, negative), method(negative, positive)
    # Two axes that are equally strong leave the choice open.
    singular = np.linalg.svd((positive - negative).swapaxes(0, 1))[1]
    apart = singular[:, 0] > 1.001 * singular[:, 1]
    scale = 1e-6 * (1 + np.abs(positive - negative).max())
    if name == "mean_difference" or apart.all():
        np.testing.assert_allclose(there, -back, atol=scale)


@given(STREAMS, STREAMS)
def test_the_axis_explains_most(positive: Streams, negative: Streams) -> None:
    """Along it the pairs differ at least as much, squared, as along their mean difference."""
    differences = positive - negative
    for layer, found in enumerate(principal_difference(positive, negative)):
        mean = mean_difference(positive, negative)[layer]
        norm, found_norm = np.linalg.norm(mean), np.linalg.norm(found)
        if norm < 1e-3 or found_norm < 1e-3:
            continue
        along = np.square(differences[:, layer] @ found / found_norm).sum()
        assert along >= np.square(differences[:, layer] @ mean / norm).sum() * (1 - 1e-9)
        # It is as long as the mean difference reaches along it, and points the same way.
        assert found @ mean == pytest.approx(found_norm**2, rel=1e-6)
