"""The cost of applying and measuring rows of logits on a GPU, with operations and kernels.

``--floor`` computes, anywhere, the bytes that each path moves and the least time they take.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from itertools import cycle
from statistics import median
from typing import Any

VOCAB = 151_936
BATCHES = (1, 8, 64, 256)
BANDWIDTH = 3.35e12  # bytes/s, an H100 SXM's memory
PASSES = {
    "apply bias, one steer and suppress": (30.0, 3.0),
    "measure one stage": (11.5, 1.0),
    "measure both stages": (36.0, 2.0),
}
"""Rows of float32 read and written by (operations, kernels); docs/kernels.md counts them."""
_ROUNDS, _CALLS = 7, 20
_BEYOND_CACHE = 256 << 20


def floor_lines() -> list[str]:
    """Return a Markdown table: bytes per row, and microseconds of memory traffic by batch."""
    times = " | ".join(f"batch {batch}" for batch in BATCHES)
    lines = [f"| | path | MB a row | {times} |", "|---|---|" + "---:|" * 5]
    for case, both in PASSES.items():
        for path, passes in zip(("torch", "kernels"), both, strict=True):
            size = passes * VOCAB * 4
            floors = " | ".join(f"{size * batch / BANDWIDTH * 1e6:.1f} us" for batch in BATCHES)
            lines.append(f"| {case} | {path} | {size / 1e6:.2f} | {floors} |")
    return lines


def paths(case: str, rows: int) -> list[Callable[[], object]]:
    """Return the two ways of a case, each on other rows at every call: no cache holds them."""
    import numpy as np
    import torch

    from loadtests.operations import measure_by_operations
    from logit_processors.controls.bias import BiasEntry
    from logit_processors.controls.steer import SteerEntry
    from logit_processors.controls.suppress import SuppressEntry
    from logit_processors.directions import Directions
    from logit_processors.history import HostHistory
    from logit_processors.host_text import HostTexts
    from logit_processors.pipeline import Pipeline
    from logit_processors.program import Program
    from logit_processors.row_spec import STATISTICS
    from logit_processors.table import EngineFacts, Rows
    from service.engine.measured import measure_by_kernels

    gpu = torch.device("cuda")
    shape = (max(1, _BEYOND_CACHE // (rows * VOCAB * 4)), rows, VOCAB)
    batches, controlled = (cycle(torch.randn(shape, device=gpu).unbind()) for _ in range(2))
    zeros = torch.zeros(rows, dtype=torch.int64, device=gpu)
    if case.startswith("measure"):
        statistics = torch.zeros(rows, len(STATISTICS), device=gpu)
        stages = {"base": batches, "controlled": controlled}
        if "one" in case:
            del stages["controlled"]

        def measured(by: Callable[..., object]) -> Callable[[], object]:
            return lambda: by({name: next(of) for name, of in stages.items()}, zeros, statistics)

        return [measured(by) for by in (measure_by_operations, measure_by_kernels)]
    directions = Directions()
    for row in range(rows):
        directions.put(str(row), torch.randn(VOCAB, device=gpu))
    slots = torch.arange(rows, device=gpu)
    history = HostHistory([()] * rows, [()] * rows, gpu)
    at, out = Rows(np.arange(rows), slots, zeros, history), torch.empty(rows, VOCAB, device=gpu)

    def applied(kernels: bool) -> Callable[[], object]:
        engine = EngineFacts(rows + 1, gpu, kernels, directions, HostTexts(None, gpu))
        pipeline = Pipeline(engine)
        for row in range(rows):
            entries: dict[str, list[Any]] = {
                "token_bias": [BiasEntry(token_id=row, add=1.0)],
                "steer_logits": [SteerEntry(vector=str(row), strength=1.5)],
                "token_suppress": [SuppressEntry(token_id=7)],
            }
            pipeline.set(row, Program.of(entries))
        return lambda: pipeline.apply(next(batches), at, out=out)

    return [applied(False), applied(True)]


def microseconds(call: Callable[[], object]) -> float:
    """Return the mean time of a call on the GPU, launches included."""
    import torch

    start, end = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
    start.record()
    for _ in range(_CALLS):
        call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / _CALLS * 1e3


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table of both paths, or the computed floor."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--floor", action="store_true", help="compute; measure nothing")
    if parser.parse_args(arguments).floor:
        print("\n".join(floor_lines()))
        return
    import torch

    if not torch.cuda.is_available():
        sys.exit("No GPU is here to measure. --floor computes what memory bandwidth allows.")
    print(f"{torch.cuda.get_device_name()}, floor at {BANDWIDTH / 1e12:.2f} TB/s")
    for case, passes in PASSES.items():
        for batch in BATCHES:
            calls = paths(case, batch)
            rounds = [[microseconds(call) for call in calls] for _ in range(_ROUNDS + 1)]
            for at, path in enumerate(("torch", "kernels")):
                times = sorted(one[at] for one in rounds[1:])  # the first one compiles
                size, middle = passes[at] * VOCAB * 4 * batch, median(times)
                taken = f"{middle:.1f} us ({times[0]:.1f} to {times[-1]:.1f})"
                reached = f"{size / middle / 1e3:.0f} GB/s, floor {size / BANDWIDTH * 1e6:.1f} us"
                print(f"{case}, batch {batch}, {path}: {taken}, {reached}")


if __name__ == "__main__":
    main()
