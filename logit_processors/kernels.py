"""Support for Triton's kernels, and their compilation before requests are served."""

from __future__ import annotations

from typing import Any

import torch
from vllm.platforms import current_platform
from vllm.triton_utils import HAS_TRITON

from logit_processors.device_measure import measure_one, measure_two
from logit_processors.pipeline import Pipeline
from logit_processors.row_spec import STATISTICS


def has_kernels(device: torch.device) -> bool:
    """Say whether kernels run on a device: a GPU, or a CPU under Triton's interpreter."""
    return HAS_TRITON and device.type == current_platform.device_type


def warm_up(model_config: Any, pipeline: Pipeline) -> None:
    """Compile the kernels on a GPU, which takes seconds; do nothing elsewhere."""
    device = pipeline.device
    if device.type != "cpu" and has_kernels(device):
        run_every_kernel(model_config.get_vocab_size(), model_config.dtype, pipeline)


def run_every_kernel(vocab: int, dtype: torch.dtype, pipeline: Pipeline) -> None:
    """Apply and measure a row of ``vocab`` logits of a dtype with every kernel."""
    pipeline.warm_up(vocab, dtype)
    device = pipeline.device
    # Two rows, since Triton specializes kernels for arguments that are 1.
    zeros = torch.zeros(2, dtype=torch.int64, device=device)
    controlled = torch.zeros(2, vocab, device=device)
    statistics = torch.zeros(2, len(STATISTICS), device=device)
    for raw in {dtype, torch.float32}:
        logits = torch.zeros(2, vocab, dtype=raw, device=device)
        rows = measure_one(logits, zeros, statistics, "base")
        measure_two(logits, controlled, zeros, statistics)
        for kept in (torch.float32, torch.float16):
            rows.write(torch.empty(2, vocab, dtype=kept, device=device))
    measure_one(controlled, zeros, statistics, "controlled")
