"""Measures and keeps the distributions of a prompt's tokens, a few rows at a time.

vLLM computes the logits of all prompt tokens of a step at once on V1, and as many alternatives as
the widest request's for all requests on V2. Here the unembedding reads a few rows at a time, and
each request's rows are measured by its own spec. No program runs over a prompt, so that both
stages are equal; residual steering is in both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from vllm.v1.outputs import LogprobsTensors

from logit_processors.row_spec import ALIVE, PROMPT_FROM_KEY, PROMPT_KEY, RowSpec
from logit_processors.upload import upload
from logit_processors.wire import WIRE_KEY
from service.engine.adapters import (
    LogitsOf,
    RowAdapters,
    adapters_of,
    unembedding_of_step,
)
from service.engine.capture import Stages, measure_rows
from service.engine.rows import RowGroup

_ROWS_AT_ONCE = 64


def prompt_spec_of(sampling_params: Any) -> RowSpec | None:
    """Return the row spec of a request's prompt, None without one."""
    wire = (sampling_params.extra_args or {}).get(WIRE_KEY)
    spec = wire.get(PROMPT_KEY) if isinstance(wire, dict) else None
    return None if spec is None else RowSpec.model_validate(spec)


def first_row_of(sampling_params: Any) -> int:
    """Return the first row that a request with a spec wants."""
    first: int = sampling_params.extra_args[WIRE_KEY].get(PROMPT_FROM_KEY, 0)
    return first


@dataclass
class PromptRows:
    """One request's prompt rows on the host, written chunk by chunk, in any order.

    Row i is the distribution of token i + 1 of the prompt.
    """

    spec: RowSpec
    count: int
    """Number of rows: one less than the prompt has tokens."""
    start: int = 0
    """The first wanted row."""
    _kept: LogprobsTensors | None = field(default=None, repr=False)

    def measure(
        self, first: int, logits_of: LogitsOf, hidden: torch.Tensor, targets: torch.Tensor
    ) -> None:
        """Measure the rows from ``first`` on, except those before ``start``.

        Args:
            first: index of the first row.
            logits_of: the model's unembedding.
            hidden: ``[rows, hidden]``, the unembedding's input.
            targets: ``[rows]`` int64, the tokens that followed.

        """
        for at in range(max(0, self.start - first), len(targets), _ROWS_AT_ONCE):
            chosen = targets[at : at + _ROWS_AT_ONCE]
            logits = logits_of(hidden[at : at + len(chosen)]).float()
            alive = torch.full((len(chosen),), ALIVE, device=logits.device)
            requests = np.zeros(len(chosen), np.int64)
            stages = Stages(logits, logits)
            self._write(
                first + at - self.start, measure_rows(self.spec, stages, chosen, alive, requests)
            )

    def take(self) -> LogprobsTensors | None:
        """Return the wanted rows as vLLM's LogprobsTensors; None for a prompt of one token."""
        return self._kept

    def _write(self, first: int, group: RowGroup) -> None:
        parts = group.token_ids, group.logprobs, group.statistics
        if self._kept is None:
            self._kept = LogprobsTensors(
                *(
                    torch.empty((self.count - self.start, *part.shape[1:]), dtype=part.dtype)
                    for part in parts
                )
            )
        for kept, part in zip(self._kept, parts, strict=False):
            kept[first : first + len(part)] = part


def kept_v1(stock: Callable[..., Any]) -> Callable[..., Any]:
    """Return V1's ``_get_prompt_logprobs_dict``, with kept rows for prompts with a spec."""

    def stock_rows(
        runner: Any, hidden: torch.Tensor, scheduled: dict[str, int]
    ) -> dict[str, LogprobsTensors | None]:
        adapters = adapters_of(runner.get_model()) if runner.num_prompt_logprobs else None
        if adapters is None:
            return stock(runner, hidden, scheduled)
        found: dict[str, LogprobsTensors | None] = {}
        waiting = runner.num_prompt_logprobs
        for name in list(waiting):
            # One request at a time, under its own adapter.
            runner.num_prompt_logprobs = {name: waiting.pop(name)}
            with adapters.named(_slots_v1(runner, name, adapters, scheduled)):
                found |= stock(runner, hidden, scheduled)
            waiting |= runner.num_prompt_logprobs
        runner.num_prompt_logprobs = waiting
        return found

    def get(
        self: Any, hidden_states: torch.Tensor, num_scheduled_tokens: dict[str, int]
    ) -> dict[str, LogprobsTensors | None]:
        ours = {
            request: spec
            for request in self.num_prompt_logprobs
            if (spec := prompt_spec_of(self.requests[request].sampling_params)) is not None
        }
        if not ours:
            return stock_rows(self, hidden_states, num_scheduled_tokens)
        found: dict[str, LogprobsTensors | None] = {}
        still = {}
        for name, spec in ours.items():
            number = self.num_prompt_logprobs.pop(name)
            rows, done = _advance_v1(self, name, spec, hidden_states, num_scheduled_tokens)
            if done:
                found[name] = rows
            else:
                still[name] = number
        found |= stock_rows(self, hidden_states, num_scheduled_tokens)
        self.num_prompt_logprobs |= still
        return found

    return get


def _slots_v1(
    runner: Any, name: str, adapters: RowAdapters, scheduled: dict[str, int]
) -> torch.Tensor:
    """Return the adapters of the rows that vLLM reads of a request's prompt, ``[rows]``."""
    request = runner.requests[name]
    tokens, count = request.prompt_token_ids, scheduled.get(name)
    if count is None or tokens is None:
        return adapters.of_tokens(0, 0)
    first = runner.query_start_loc.np[runner.input_batch.req_id_to_index[name]].item()
    left = len(tokens) - 1 - request.num_computed_tokens
    return adapters.of_tokens(first, max(0, min(count, left)))


def _advance_v1(
    runner: Any, name: str, spec: RowSpec, hidden: torch.Tensor, scheduled: dict[str, int]
) -> tuple[LogprobsTensors | None, bool]:
    """Measure a request's rows in this step; return them and True once all are measured."""
    request = runner.requests[name]
    tokens, count = request.prompt_token_ids, scheduled.get(name)
    if count is None or tokens is None:  # preempted, or a prompt of embeddings
        return None, False
    # vLLM's own field for a prompt in progress, freed with the request.
    rows = request.in_progress_prompt_logprobs_cpu
    if rows is None:
        rows = request.in_progress_prompt_logprobs_cpu = PromptRows(
            spec, len(tokens) - 1, first_row_of(request.sampling_params)
        )
    first = request.num_computed_tokens
    end = min(first + count, rows.count)
    if end > first:
        offset = runner.query_start_loc.np[runner.input_batch.req_id_to_index[name]].item()
        targets = upload(tokens[first + 1 : end + 1], hidden.device)
        logits_of = unembedding_of_step(runner.model.compute_logits, hidden)
        rows.measure(first, logits_of, hidden[offset : offset + end - first], targets)
    if first + count <= rows.count:
        return None, False
    request.in_progress_prompt_logprobs_cpu = None
    return rows.take(), True


def added_v2(stock: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``PromptLogprobsWorker.add_request``, which keeps the row spec of a prompt."""

    def add_request(self: Any, req_id: str, req_idx: int, sampling_params: Any) -> None:
        stock(self, req_id, req_idx, sampling_params)
        spec = prompt_spec_of(sampling_params)
        if spec is not None:
            self.uses_prompt_logprobs[req_idx] = False
            # vLLM's own field for a prompt in progress, freed with the request.
            self.in_progress_prompt_logprobs[req_id] = spec, first_row_of(sampling_params)

    return add_request


def kept_v2(stock: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``PromptLogprobsWorker.compute_prompt_logprobs`` with kept rows beside vLLM's."""

    def compute(
        self: Any,
        logits_fn: LogitsOf,
        hidden_states: torch.Tensor,
        input_batch: Any,
        all_token_ids: torch.Tensor,
        num_computed_tokens: torch.Tensor,
        prompt_lens: Any,
    ) -> dict[str, LogprobsTensors]:
        logits_fn = unembedding_of_step(logits_fn, hidden_states)
        found: dict[str, LogprobsTensors] = stock(
            self,
            logits_fn,
            hidden_states,
            input_batch,
            all_token_ids,
            num_computed_tokens,
            prompt_lens,
        )
        progress = self.in_progress_prompt_logprobs
        for at, name in enumerate(input_batch.req_ids):
            if isinstance(asked := progress.get(name), tuple):
                spec, start = asked
                count = int(prompt_lens[input_batch.idx_mapping_np[at]]) - 1
                progress[name] = PromptRows(spec, count, start)
            rows = progress.get(name)
            if isinstance(rows, PromptRows):
                done = _advance_v2(rows, at, logits_fn, hidden_states, input_batch, all_token_ids)
                if done is not None:
                    found[name] = done
        return found

    return compute


def named_v2(stock: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``compute_prompt_token_id_logprobs``, which reads each row under its adapter."""

    def compute_named(
        self: Any,
        logits_fn: LogitsOf,
        hidden_states: torch.Tensor,
        input_batch: Any,
        prompt_lens: Any,
    ) -> dict[str, torch.Tensor]:
        logits_fn = unembedding_of_step(logits_fn, hidden_states)
        scores: dict[str, torch.Tensor] = stock(
            self, logits_fn, hidden_states, input_batch, prompt_lens
        )
        return scores

    return compute_named


def _advance_v2(
    rows: PromptRows,
    at: int,
    logits_of: LogitsOf,
    hidden: torch.Tensor,
    batch: Any,
    all_token_ids: torch.Tensor,
) -> LogprobsTensors | None:
    """Measure a request's rows in this step; return all rows in the last step."""
    first = int(batch.num_computed_prefill_tokens_np[at])
    end = first + int(batch.num_scheduled_tokens[at])
    if first > rows.count or rows.count + 1 < batch.prefill_len_np[at]:
        return None  # it generates, or does so again after preemption
    last = min(end, rows.count)
    if last > first:
        offset = int(batch.query_start_loc_np[at])
        targets = all_token_ids[int(batch.idx_mapping_np[at]), first + 1 : last + 1].long()
        rows.measure(first, logits_of, hidden[offset : offset + last - first], targets)
    return rows.take() if end > rows.count else None
