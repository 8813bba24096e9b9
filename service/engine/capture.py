"""Measures and keeps the rows of logits that requests asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from logit_processors import measure
from logit_processors.places import Layout, Places
from logit_processors.processor import ControlProcessor
from logit_processors.row_spec import BROKEN, COLUMN, DENSE, STATISTICS, PlainLogprobs, RowSpec
from logit_processors.upload import upload
from service.engine.measured import MeasuredRows, measure_stages
from service.engine.residual.operator import current_stream
from service.engine.rows import RowGroup, StepRows


@dataclass(frozen=True)
class Stages:
    """Logits of the measured rows, ``[rows, vocab]``; the same tensor if no program."""

    base: torch.Tensor
    controlled: torch.Tensor


def measure_rows(
    spec: RowSpec,
    stages: Stages | None,
    sampled: torch.Tensor,
    alive: torch.Tensor,
    requests: NDArray[np.int64],
) -> RowGroup:
    """Measure rows of one spec.

    Args:
        spec: the values to keep.
        stages: ``[rows, vocab]`` each; None if the spec measures nothing.
        sampled: ``[rows]`` int64, the sampled token.
        alive: ``[rows]`` float32, each row's status after its program.
        requests: ``[rows]``, the index of each row's request in the batch.

    """
    count = len(requests)
    statistics = alive.new_zeros((count, len(STATISTICS)))
    statistics[:, COLUMN["alive"]] = alive
    measured: list[MeasuredRows] = []
    if spec.stages:
        assert stages is not None
        logits = {stage: getattr(stages, stage) for stage in spec.stages}
        measured = measure_stages(logits, sampled, statistics)
    token_ids, kept = _keep(spec, measured, count)
    return RowGroup(requests, token_ids, kept, statistics)


def _keep(
    spec: RowSpec, measured: Sequence[MeasuredRows], count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a spec's token ids ``[rows, stages, k]`` and log-probabilities."""
    dtype = torch.float16 if spec.half else torch.float32
    nothing = torch.empty((count, len(measured), 0), dtype=torch.int32)
    if spec.top_k == 0 or not measured:
        return nothing, nothing.to(dtype)
    if spec.top_k == DENSE:
        values = measured[0].values
        dense = values.new_empty((count, len(measured), values.shape[1]), dtype=dtype)
        for stage, rows in enumerate(measured):
            rows.write(dense[:, stage])
        return nothing, dense
    best: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    for rows in measured:
        if id(rows) not in best:
            best[id(rows)] = rows.top_k(spec.top_k)
    kept = [best[id(rows)] for rows in measured]
    return (
        torch.stack([token_ids for _, token_ids in kept], dim=1),
        torch.stack([values for values, _ in kept], dim=1).to(dtype),
    )


def plain_logprobs(
    spec: PlainLogprobs,
    base: torch.Tensor,
    sampled: torch.Tensor,
    requests: NDArray[np.int64],
) -> RowGroup:
    """Make rows in the engine's own format: sampled token first, then the top k."""
    logprobs = measure.log_softmax(base)
    first = sampled.unsqueeze(1)
    chosen = logprobs.gather(1, first)
    # The engine counts tied tokens into the rank.
    ranks = (logprobs >= chosen).sum(dim=-1)
    if spec.token_ids:
        token_ids = upload(spec.token_ids, base.device).expand(len(requests), -1)
        values = logprobs.gather(1, token_ids)
    else:
        count = base.shape[1] if spec.top_k == DENSE else spec.top_k
        values, token_ids = measure.top_k(logprobs, count)
    token_ids = torch.cat((first, token_ids.long()), dim=1).int()
    return RowGroup(requests, token_ids, torch.cat((chosen, values), dim=1), ranks)


Spec = RowSpec | PlainLogprobs


@dataclass(frozen=True)
class Group:
    """Requests of one spec, and their rows."""

    spec: Spec
    requests: Sequence[int]
    rows: int

    @property
    def is_measured(self) -> bool:
        """Say whether the rows' logits are read."""
        return isinstance(self.spec, PlainLogprobs) or bool(self.spec.stages)


@dataclass(frozen=True)
class Kept:
    """The kept rows of a step: ``places``, group by group, measured groups first."""

    groups: Sequence[Group]
    places: Places

    @classmethod
    def of(cls, wanted: Mapping[int, Spec], layout: Layout) -> Kept:
        """Group the batch's requests by their specs."""
        by_spec: dict[Spec, list[int]] = {}
        for request, spec in wanted.items():
            by_spec.setdefault(spec, []).append(request)
        groups = [
            Group(spec, requests, layout.count(requests)) for spec, requests in by_spec.items()
        ]
        groups.sort(key=lambda group: not group.is_measured)
        order = [request for group in groups for request in group.requests]
        return cls(groups, layout.places(order))

    @property
    def measured(self) -> Places:
        """Return the rows whose logits are read."""
        return self.places.first(sum(group.rows for group in self.groups if group.is_measured))

    def is_whole(self, batch: int, rows: int) -> bool:
        """Say whether all of a step's rows are measured, in their own order.

        Args:
            batch: the step's requests.
            rows: its rows.

        """
        if len(self.groups) != 1 or len(self.measured) != rows:
            return False
        return list(self.groups[0].requests) == list(range(batch))


def keep_rows(
    processor: ControlProcessor, kept: Kept, base: torch.Tensor, sampled: torch.Tensor
) -> StepRows:
    """Measure a step's rows, group by group.

    Args:
        processor: holds the programs of the batch.
        kept: the rows and their specs.
        base: ``[measured, vocab]``, the raw logits of the measured rows.
        sampled: ``[step rows]`` int64, the sampled token of each row of the step.

    """
    controlled = base
    if any(_sees_control(processor, group) for group in kept.groups):
        controlled = processor.run_programs(base, kept.measured)
    places = kept.places
    alive = _unless_broken(processor.alive(places), places.requests)
    tokens = sampled[places.rows]
    groups = []
    start = 0
    for group in kept.groups:
        part = slice(start, start + group.rows)
        start = part.stop
        requests, drawn = places.requests[part], tokens[part]
        if isinstance(group.spec, PlainLogprobs):
            groups.append(plain_logprobs(group.spec, base[part], drawn, requests))
            continue
        stages = None
        if group.is_measured:
            own = base[part]
            stages = Stages(own, controlled[part] if _sees_control(processor, group) else own)
        groups.append(measure_rows(group.spec, stages, drawn, alive[part], requests))
    return StepRows(groups)


def _sees_control(processor: ControlProcessor, group: Group) -> bool:
    """Say whether a group's spec includes the controlled stage."""
    shown = isinstance(group.spec, RowSpec) and group.spec.controlled
    return shown and any(processor.has_program(request) for request in group.requests)


def _unless_broken(alive: torch.Tensor, requests: NDArray[np.int64]) -> torch.Tensor:
    """Mark the rows whose residual steering cannot be applied, ``[rows]`` float32."""
    stream = current_stream()
    if stream is None or not stream.broken_rows:
        return alive
    broken = [request in stream.broken_rows for request in requests.tolist()]
    return alive.masked_fill(upload(broken, alive.device, torch.bool), BROKEN)
