"""What the lens refuses before the engine works, and what of the engine's word it passes on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from service.api import lens
from service.errors import BadRequestError
from service.schemas.sight import LensRequest


@pytest.mark.parametrize(
    ("positions", "fewest"),
    [(None, 7), ([0, 0, 3], 2), ([-1, -2, 5], 2), ([-1, 0], 1), ([4], 1)],
)
def test_two_positions_may_turn_out_to_be_one(positions: list[int] | None, fewest: int) -> None:
    assert lens._fewest(LensRequest(prompt="a", positions=positions), 7) == fewest


@pytest.mark.parametrize(("cells", "fits"), [(lens.MAX_CELLS, True), (lens.MAX_CELLS + 1, False)])
def test_so_many_cells_are_read(cells: int, fits: bool) -> None:
    if fits:
        assert lens._check_cells(1, cells) == cells
        return
    with pytest.raises(BadRequestError, match=f"allowed: {lens.MAX_CELLS}") as refused:
        lens._check_cells(1, cells)
    assert refused.value.param == "positions"


def test_so_many_tokens_pass_the_model() -> None:
    lens._check_passes(lens.MAX_PASSED_TOKENS)
    with pytest.raises(BadRequestError, match="no prefix cache") as refused:
        lens._check_passes(lens.MAX_PASSED_TOKENS + 1)
    assert refused.value.param == "positions"


async def test_a_model_without_a_lens_is_no_error_of_the_servers() -> None:
    class States:
        async def take_each(self, *_: Any) -> AsyncIterator[tuple[Sequence[int], Any]]:
            yield [0], np.zeros((2, 1, 4), np.float32)

    class Engine:
        async def collective_rpc(self, *_: Any) -> list[Any]:
            return [None, {"failure": b"its final norm is not to be found"}]

    context: Any = SimpleNamespace(
        states=States(), engine=Engine(), model=SimpleNamespace(layers=2)
    )
    with pytest.raises(BadRequestError, match="no lens: its final norm"):
        await lens._read(context, [1, 2], [0, 1], [0], 5, (), 2)
