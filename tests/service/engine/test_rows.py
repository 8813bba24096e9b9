"""A step's rows: each request gets its own, whatever width its neighbours have."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from vllm.v1.outputs import LogprobsLists

from logit_processors.row_spec import ALIVE, BROKEN, EXHAUSTED
from service.engine.rows import HostRows, RowGroup, StepRows


def group(requests: list[int], width: int, mark: int) -> RowGroup:
    """Rows whose every value is ``mark`` plus their place in the group."""
    places = mark + torch.arange(len(requests))
    return RowGroup(
        np.array(requests),
        places[:, None, None].expand(-1, 2, width).int().contiguous(),
        places[:, None, None].expand(-1, 2, width).float().contiguous(),
        places[:, None].expand(-1, 8).float().contiguous(),
    )


def sent(rows: HostRows, request: int, count: int = 1) -> LogprobsLists:
    """Return a request's rows, which must be sent."""
    found = rows.slice_request(request, count)
    assert found is not None
    return found


@pytest.fixture
def step() -> StepRows:
    return StepRows([group([4, 0], 3, 10), group([1], 1000, 20), group([2, 3, 5], 0, 30)])


@pytest.mark.parametrize(
    ("row", "width", "mark"), [(4, 3, 10), (0, 3, 11), (1, 1000, 20), (2, 0, 30), (5, 0, 32)]
)
def test_a_request_gets_its_rows(step: StepRows, row: int, width: int, mark: int) -> None:
    token_ids, logprobs, statistics, _ = sent(step.to_cpu_nonblocking().tolists(), row)
    assert token_ids.shape == logprobs.shape == (1, 2, width)
    assert (token_ids == mark).all()
    assert (logprobs == mark).all()
    assert statistics.tolist() == [[mark] * 8]


def test_rows_come_as_numpy_of_their_own_types(step: StepRows) -> None:
    step.groups[0].logprobs = step.groups[0].logprobs.half()
    rows = step.tolists()
    assert sent(rows, 4).logprobs.dtype == np.float16
    assert sent(rows, 1).logprobs.dtype == np.float32
    assert sent(rows, 1).logprob_token_ids.dtype == np.int32


def test_a_request_that_keeps_nothing_has_no_rows(step: StepRows) -> None:
    with pytest.raises(KeyError):
        step.tolists().slice_request(9, 1)


def checked(requests: list[int], alive: list[float]) -> RowGroup:
    """Rows that measure nothing and tell how their programs left them."""
    statistics = torch.zeros(len(requests), 8)
    statistics[:, 0] = torch.tensor(alive)
    nothing = torch.empty(len(requests), 0, 0)
    return RowGroup(np.array(requests), nothing.int(), nothing, statistics)


def test_rows_that_only_tell_that_all_is_well_are_not_sent() -> None:
    rows = StepRows([checked([0, 2, 2], [ALIVE] * 3), group([1], 3, 1)]).tolists()
    assert rows.slice_request(0, 1) is None
    assert rows.slice_request(2, 2) is None
    assert rows.slice_request(1, 1) is not None


@pytest.mark.parametrize("bad", [EXHAUSTED, BROKEN])
def test_a_row_that_went_wrong_is_sent(bad: float) -> None:
    rows = StepRows([checked([0, 2], [ALIVE, bad])]).tolists()
    assert sent(rows, 2).sampled_token_ranks[:, 0].tolist() == [bad]


def test_a_request_gets_the_first_of_its_rows_as_many_as_it_has_tokens() -> None:
    rows = StepRows([group([3, 3, 3, 0, 0], 2, 1), group([2, 2], 2, 20)]).tolists()
    marks = {
        (request, count): sent(rows, request, count).sampled_token_ranks[:, 0].tolist()
        for request, count in ((3, 3), (3, 1), (3, 0), (0, 2), (0, 1), (2, 2))
    }
    assert marks == {
        (3, 3): [1, 2, 3],
        (3, 1): [1],
        (3, 0): [],
        (0, 2): [4, 5],
        (0, 1): [4],
        (2, 2): [20, 21],
    }
