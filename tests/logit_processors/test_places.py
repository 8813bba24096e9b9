"""Which rows are whose, with and without drafted tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from logit_processors.places import Layout
from tests.unit_support import CPU

DRAFTS = np.array([2, 0, 1, 3], np.int32)
BOUNDS = torch.tensor([0, 3, 4, 6, 10], dtype=torch.int32)


@pytest.mark.parametrize("requests", [[0, 1, 2], [2, 0], []])
def test_without_drafts_a_request_has_the_row_of_its_place(requests: list[int]) -> None:
    places = Layout(CPU).places(requests)
    assert places.requests.tolist() == places.rows.tolist() == requests
    assert len(places) == Layout(CPU).count(requests) == len(requests)


def test_with_drafts_a_request_has_one_row_more() -> None:
    layout = Layout(CPU, DRAFTS, BOUNDS)
    places = layout.places([3, 1, 0])
    assert places.requests.tolist() == [3, 3, 3, 3, 1, 0, 0, 0]
    assert places.rows.tolist() == [6, 7, 8, 9, 3, 0, 1, 2]
    assert layout.count([3, 1, 0]) == 8
    assert places.first(5).requests.tolist() == [3, 3, 3, 3, 1]
    assert places.first(5).rows.tolist() == [6, 7, 8, 9, 3]


def test_drafts_that_the_device_leaves_out_end_at_the_requests_last_row() -> None:
    # Scheduled as above; the device verifies one draft of the first, none of the last.
    verified = torch.tensor([0, 2, 3, 5, 6], dtype=torch.int32)
    places = Layout(CPU, DRAFTS, verified).places([0, 1, 2, 3])
    assert places.rows.tolist() == [0, 1, 1, 2, 3, 4, 5, 5, 5, 5]
