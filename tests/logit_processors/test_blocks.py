"""Blocks of rows: what a GPU is given, and what Triton's interpreter is."""

from __future__ import annotations

import pytest
import torch

from logit_processors.blocks import block_of
from tests.unit_support import CPU


@pytest.mark.parametrize(("size", "block"), [(49152, 16384), (5000, 2048), (1, 1)])
def test_three_programs_cover_a_row_on_a_cpu(size: int, block: int) -> None:
    assert block_of(size, CPU, 1024) == block


def test_a_gpu_keeps_its_block() -> None:
    assert block_of(49152, torch.device("cuda"), 1024) == 1024
