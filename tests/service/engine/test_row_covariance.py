"""The covariance of rows, made in parts, against numpy's of the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from service.engine.row_covariance import PART, RowCovariance
from tests.waiting import wait_for

HIDDEN = 6


def finished(covariance: RowCovariance) -> RowCovariance:
    for _ in range(covariance.parts):
        assert not covariance.advance()
    wait_for(covariance.advance)
    return covariance


def rows_of(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, HIDDEN, generator=generator) * torch.arange(1.0, HIDDEN + 1) + 3


@pytest.mark.parametrize("count", [100, PART, 2 * PART + 5])
def test_parts_make_the_whole(count: int) -> None:
    rows = rows_of(count)
    covariance = finished(RowCovariance(rows, -(-count // PART), count, lambda shares: shares))
    wanted = rows[:2].mean(dim=0)
    sigma = np.cov(rows.double().numpy(), rowvar=False, bias=True)
    sigma += 0.01 * np.diag(sigma).mean() * np.eye(HIDDEN)
    expected = np.linalg.solve(sigma, wanted.double().numpy() - rows.double().mean(0).numpy())
    np.testing.assert_allclose(covariance.whitened(wanted).numpy(), expected, rtol=1e-4, atol=1e-6)


def test_ranks_with_fewer_rows_take_part_as_often() -> None:
    whole = rows_of(PART + 10)
    shares: list[torch.Tensor] = []
    first = RowCovariance(whole[: PART + 2], 2, len(whole), lambda own: own + shares.pop())

    def share(own: torch.Tensor) -> torch.Tensor:
        shares.append(own)
        return own

    second = RowCovariance(whole[PART + 2 :], 2, len(whole), share)
    for _ in range(2):
        second.advance()
        first.advance()
    wait_for(first.advance)
    alone = finished(RowCovariance(whole, 2, len(whole), lambda own: own))
    wanted = whole[5]
    torch.testing.assert_close(first.whitened(wanted), alone.whitened(wanted), rtol=1e-4, atol=1e-5)


def test_it_is_factored_once() -> None:
    calls: list[int] = []

    def summed(own: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return own

    covariance = finished(RowCovariance(rows_of(50), 1, 50, summed))
    for _ in range(3):
        assert covariance.advance()
        covariance.whitened(torch.ones(HIDDEN))
    assert len(calls) == 1
