"""Keeping rows of logits: what is measured, and the two samplers that are tapped for it.

vLLM computes logprobs for the whole batch at the widest request's k, sorted and ranked by
a kernel that compiles on first use. Here each request's rows are measured as it asked, and
nobody else's are touched. Its samplers have no extension point for that, so their entry
points are wrapped; ``compatibility`` asserts the signatures relied on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from vllm.triton_utils import HAS_TRITON
from vllm.v1.sample.sampler import Sampler as V1Sampler

from logit_processors import measure
from logit_processors.processor import ControlProcessor
from logit_processors.row_spec import BROKEN, DENSE, STATISTICS, PlainLogprobs, RowSpec
from logit_processors.upload import upload
from service.engine.measured import MeasuredRows, measure_stages
from service.engine.residual.operator import current_stream
from service.engine.rows import RowGroup, StepRows

_COLUMN = {name: at for at, name in enumerate(STATISTICS)}


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
    rows: list[int],
) -> RowGroup:
    """Measure rows that want the same.

    Args:
        spec: what to keep.
        stages: ``[rows, vocab]`` each; None if the spec measures nothing.
        sampled: ``[rows]`` int64, the token that was drawn.
        alive: ``[rows]`` float32, how the program left each row.
        rows: the batch rows they are.

    """
    count = len(rows)
    statistics = alive.new_zeros((count, len(STATISTICS)))
    statistics[:, _COLUMN["alive"]] = alive
    measured: list[MeasuredRows] = []
    if spec.stages:
        assert stages is not None
        logits = {stage: getattr(stages, stage) for stage in spec.stages}
        measured = measure_stages(logits, sampled, statistics)
    token_ids, kept = _keep(spec, measured, count)
    return RowGroup(rows, token_ids, kept, statistics)


def _keep(
    spec: RowSpec, measured: Sequence[MeasuredRows], count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids ``[rows, stages, k]`` and log-probabilities of what a spec keeps."""
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
    spec: PlainLogprobs, base: torch.Tensor, sampled: torch.Tensor, rows: list[int]
) -> RowGroup:
    """Make the rows that the engine itself would make: sampled token first, then the top k."""
    logprobs = measure.log_softmax(base)
    first = sampled.unsqueeze(1)
    chosen = logprobs.gather(1, first)
    # The engine counts tied tokens into the rank.
    ranks = (logprobs >= chosen).sum(dim=-1)
    if spec.token_ids:
        token_ids = upload(spec.token_ids, base.device).expand(len(rows), -1)
        values = logprobs.gather(1, token_ids)
    else:
        count = base.shape[1] if spec.top_k == DENSE else spec.top_k
        values, token_ids = measure.top_k(logprobs, count)
    token_ids = torch.cat((first, token_ids.long()), dim=1).int()
    return RowGroup(rows, token_ids, torch.cat((chosen, values), dim=1), ranks)


def keep_rows(
    processor: ControlProcessor,
    wanted: Mapping[int, RowSpec | PlainLogprobs],
    base: torch.Tensor,
    sampled: torch.Tensor,
) -> StepRows:
    """Measure a step's rows, grouped by what they want.

    Args:
        processor: knows the programs of the batch.
        wanted: what to keep by batch row, those that are measured first.
        base: ``[measured, vocab]``, the raw logits of the measured rows in that order.
        sampled: ``[batch]`` int64, the tokens drawn.

    """
    rows = list(wanted)
    measured = rows[: len(base)]
    controlled = base
    if any(processor.has_program(row) and _sees_control(wanted[row]) for row in measured):
        controlled = processor.run_programs(base, measured)
    alive = _unless_broken(processor.alive(rows), rows)
    groups = []
    for spec, places in _group(wanted.values()).items():
        group_rows = [rows[at] for at in places]
        index = upload(places, sampled.device)
        tokens = sampled[upload(group_rows, sampled.device)]
        if isinstance(spec, RowSpec) and not spec.stages:
            groups.append(measure_rows(spec, None, tokens, alive[index], group_rows))
            continue
        everything = len(places) == len(base)
        group_base = base if everything else base[index]
        if isinstance(spec, PlainLogprobs):
            groups.append(plain_logprobs(spec, group_base, tokens, group_rows))
            continue
        group_controlled = group_base
        if any(processor.has_program(row) for row in group_rows):
            group_controlled = controlled if everything else controlled[index]
        stages = Stages(group_base, group_controlled)
        groups.append(measure_rows(spec, stages, tokens, alive[index], group_rows))
    return StepRows(groups)


def _unless_broken(alive: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
    """Mark the rows that do not get the residual steering they asked for, ``[rows]`` float32."""
    stream = current_stream()
    if stream is None or not stream.broken_rows:
        return alive
    broken = upload([row in stream.broken_rows for row in rows], alive.device, torch.bool)
    return alive.masked_fill(broken, BROKEN)


def _is_measured(spec: RowSpec | PlainLogprobs) -> bool:
    return isinstance(spec, PlainLogprobs) or bool(spec.stages)


def _sees_control(spec: RowSpec | PlainLogprobs) -> bool:
    return isinstance(spec, RowSpec) and spec.controlled


def _group(
    specs: Iterable[RowSpec | PlainLogprobs],
) -> dict[RowSpec | PlainLogprobs, list[int]]:
    groups: dict[RowSpec | PlainLogprobs, list[int]] = {}
    for at, spec in enumerate(specs):
        groups.setdefault(spec, []).append(at)
    return groups


def tap_v1_sampler() -> None:
    """Make V1's sampler hand out kept rows in the place of its own logprobs."""
    stock = V1Sampler.forward

    def forward(
        self: Any,
        logits: torch.Tensor,
        sampling_metadata: Any,
        predict_bonus_token: bool = False,
        logprobs_mode_override: Any = None,
    ) -> Any:
        processor = _processor_of(sampling_metadata.logitsprocs.non_argmax_invariant)
        wanted = processor.wanted_rows(len(logits)) if processor is not None else {}
        if processor is None or not wanted:
            return stock(
                self, logits, sampling_metadata, predict_bonus_token, logprobs_mode_override
            )
        # The sampler works in place on float32 logits: copy the rows before it does.
        wanted = _measured_first(wanted)
        base = logits[_measured_index(wanted, logits.device)].float()
        quiet = replace(sampling_metadata, max_num_logprobs=None, logprob_token_ids=None)
        output = stock(self, logits, quiet, predict_bonus_token, logprobs_mode_override)
        sampled = output.sampled_token_ids.squeeze(-1).long()
        output.logprobs_tensors = keep_rows(processor, wanted, base, sampled)
        return output

    V1Sampler.forward = forward


def tap_v2_sampler() -> None:
    """Make V2's sampler hand out kept rows in the place of its own logprobs."""
    from vllm.v1.worker.gpu.sample.sampler import Sampler as V2Sampler

    stock = V2Sampler.__call__
    stock_dims = V2Sampler.get_logprobs_dims

    def get_logprobs_dims(self: Any, idx_mapping_np: Any, include_token_ids: bool = True) -> Any:
        if _keeps_rows(self):
            return None
        return stock_dims(self, idx_mapping_np, include_token_ids)

    def call(self: Any, logits: torch.Tensor, input_batch: Any) -> Any:
        if not _keeps_rows(self):
            return stock(self, logits, input_batch)
        processor: Any = _processor_of(self.logits_processors)
        processor.look_at(input_batch)
        wanted = _measured_first(processor.wanted_rows(input_batch.num_reqs))
        if not wanted:
            return stock(self, logits, input_batch)
        # The sampler copies logits before it changes them, so the raw rows stay.
        index = _measured_index(wanted, logits.device)
        base = logits if len(index) == len(logits) else logits[index]
        output = stock(self, logits, input_batch)
        sampled = output.sampled_token_ids.squeeze(-1).long()
        output.logprobs_tensors = keep_rows(processor, wanted, base, sampled)
        return output

    V2Sampler.get_logprobs_dims = get_logprobs_dims
    V2Sampler.__call__ = call


def _keeps_rows(sampler: Any) -> bool:
    """Say whether a V2 sampler's rows are ours: those of drafted tokens stay the engine's."""
    controlled = _processor_of(sampler.logits_processors) is not None
    return controlled and not sampler.req_states.num_speculative_steps


def _measured_first(
    wanted: Mapping[int, RowSpec | PlainLogprobs],
) -> dict[int, RowSpec | PlainLogprobs]:
    return dict(sorted(wanted.items(), key=lambda item: not _is_measured(item[1])))


def _measured_index(
    wanted: Mapping[int, RowSpec | PlainLogprobs], device: torch.device
) -> torch.Tensor:
    measured = [row for row, spec in wanted.items() if _is_measured(spec)]
    return upload(measured, device)


def _processor_of(processors: Sequence[Any]) -> ControlProcessor | None:
    return next((p for p in processors if isinstance(p, ControlProcessor)), None)


_installed: list[str] = []


def is_installed() -> bool:
    """Say whether the samplers of this process are tapped."""
    return bool(_installed)


def install() -> None:
    """Tap the samplers of this process."""
    tap_v1_sampler()
    _installed.append("V1")
    if HAS_TRITON:
        tap_v2_sampler()
        _installed.append("V2")
