"""The bytes that the note on kernels states, counted operation by operation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from loadtests.kernels import PASSES, floor_lines, main
from loadtests.operations import measure_by_operations
from logit_processors.directions import Directions
from logit_processors.row_spec import STATISTICS
from tests.entries import bias_token, program_of, steer_logits, suppress_token
from tests.unit_support import pipeline_of, rows_of

NOTE = Path(__file__).parents[2] / "docs" / "kernels.md"
META = torch.device("meta")  # shapes without data, on the way that a GPU's tensors take
ROWS, VOCAB = 2, 10_000
# Operations that touch only some elements of their largest operand.
SPARSE = ("scatter", "gather", "index.Tensor")


class Traffic(TorchDispatchMode):
    """Adds up the bytes that operations on large tensors read and write, in rows of float32."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = str(func).removeprefix("aten.")
        if func.is_view or name.startswith("empty"):
            return result
        written = _bytes(result)
        if name.startswith("index.Tensor"):
            self.bytes += 2 * written
        elif not name.startswith(SPARSE):
            # A copy does not read what it overwrites.
            self.bytes += written + _bytes(args[1:] if name.startswith("copy_") else args)
        return result

    @property
    def passes(self) -> float:
        """Rows that were moved for each row there is."""
        return self.bytes / (ROWS * VOCAB * 4)


def _bytes(values: Any) -> int:
    return sum(leaf.nbytes for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor))


@pytest.mark.parametrize("stages", [("base",), ("base", "controlled")])
def test_what_operations_move_to_measure(stages: tuple[str, ...]) -> None:
    logits = {stage: torch.zeros(ROWS, VOCAB, device=META) for stage in stages}
    sampled = torch.zeros(ROWS, dtype=torch.int64, device=META)
    statistics = torch.zeros(ROWS, len(STATISTICS), device=META)
    with Traffic() as traffic:
        measure_by_operations(logits, sampled, statistics)
    case = f"measure {'one stage' if len(stages) == 1 else 'both stages'}"
    assert traffic.passes == pytest.approx(PASSES[case][0], rel=1e-2)


def test_what_operations_move_to_apply_a_program() -> None:
    directions = Directions()
    directions.put("vector", torch.zeros(VOCAB, device=META))
    slots = pipeline_of(ROWS, directions, device=META, kernels=False)
    steer = (steer_logits("vector", 1.0),)
    for slot in range(ROWS):
        slots.set(slot, program_of((bias_token(1, 1.0),), (), steer, (suppress_token(2),)))
    logits = torch.zeros(ROWS, VOCAB, device=META)
    rows = rows_of(range(ROWS), [0] * ROWS, device=META)
    slots.flush()
    with Traffic() as traffic:
        slots.apply(logits, rows, out=torch.empty_like(logits))
    case = "apply bias, one steer and suppress"
    assert traffic.passes == pytest.approx(PASSES[case][0], rel=1e-2)


def test_the_note_holds_the_computed_floor() -> None:
    assert "\n".join(floor_lines()) in NOTE.read_text()
    # 2 rows of 151,936 floats, 64 times, at 3.35 TB/s.
    both = next(line for line in floor_lines() if "both stages | kernels" in line)
    assert "| 1.22 |" in both
    assert "| 23.2 us |" in both


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to measure")
def test_without_a_gpu_nothing_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="No GPU"):
        main([])
    main(["--floor"])
    assert capsys.readouterr().out.splitlines() == floor_lines()
