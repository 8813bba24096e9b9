"""The adapter for vLLM's V1 model runner: rows move, every token is on the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from vllm.v1.sample.logits_processor.interface import BatchUpdate, MoveDirectionality

from logit_processors.control import Phase
from logit_processors.directions import DIRECTIONS
from logit_processors.exhausted import exhausted
from logit_processors.history import HostHistory
from logit_processors.host_text import HostTexts
from logit_processors.kernels import has_kernels, warm_up
from logit_processors.pipeline import Pipeline
from logit_processors.places import Places
from logit_processors.processor import ControlProcessor, Wanted, load_vocabulary
from logit_processors.row_spec import ALIVE, PlainLogprobs, RowSpec
from logit_processors.table import EngineFacts, Rows
from logit_processors.upload import upload


@dataclass
class _Running:
    """A request in the batch. ``slot`` is the empty slot if it has no program."""

    slot: int
    wanted: Wanted
    prompt: Sequence[int]
    output: Sequence[int]


class V1ControlProcessor(ControlProcessor):
    """Tracks V1's batch and runs its programs."""

    def __init__(self, vllm_config: Any, device: torch.device, _is_pin_memory: bool) -> None:
        slots = vllm_config.scheduler_config.max_num_seqs + 1
        texts = HostTexts(load_vocabulary(vllm_config.model_config), device)
        self._pipeline = Pipeline(
            EngineFacts(slots, device, has_kernels(device), DIRECTIONS, texts)
        )
        warm_up(vllm_config.model_config, self._pipeline)
        self._free = list(range(self._pipeline.empty))
        self._running: dict[int, _Running] = {}
        self._alive: torch.Tensor | None = None

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Apply an update of the batch: requests removed, added and moved, in that order."""
        if batch_update is None:
            return
        for row in batch_update.removed:
            self._remove(row)
        for row, params, prompt, output in batch_update.added:
            self._remove(row)
            wanted = Wanted.of(params)
            if wanted != Wanted():
                self._running[row] = self._start(wanted, prompt or (), output)
        for source, target, direction in batch_update.moved:
            moving, staying = self._running.pop(source, None), self._running.pop(target, None)
            if moving is not None:
                self._running[target] = moving
            if staying is not None:
                if direction == MoveDirectionality.SWAP:
                    self._running[source] = staying
                else:
                    self._stop(staying)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Run the programs of the whole batch on ``[rows, vocab]`` logits, in place."""
        self._alive = None
        count = len(logits)
        watched = [
            row for row, each in self._running.items() if row < count and each.wanted.watched
        ]
        if not watched:
            return logits
        self._pipeline.failed = None
        if any(map(self.has_program, watched)):
            self._run(logits, range(count), Phase.FORCE, None)
        unwatched = np.ones(count, bool)
        unwatched[watched] = False
        # Decided by the row's own request, not by its neighbours in the batch.
        alive = ~exhausted(logits) | upload(unwatched, logits.device, torch.bool)
        self._alive = self._pipeline.outcome(alive)
        return logits

    def run_programs(self, logits: torch.Tensor, places: Places) -> torch.Tensor:
        """Return the controlled logits of some rows of the batch."""
        out = torch.empty_like(logits, dtype=torch.float32)
        return self._run(logits, places.requests.tolist(), Phase.MASK, out)

    def _run(
        self, logits: torch.Tensor, rows: Sequence[int], upto: Phase, out: torch.Tensor | None
    ) -> torch.Tensor:
        running = [self._running.get(row) for row in rows]
        empty, device = self._pipeline.empty, self._pipeline.device
        host_slots = np.array([empty if each is None else each.slot for each in running], np.int64)
        outputs = [() if each is None else each.output for each in running]
        prompts = [() if each is None else each.prompt for each in running]
        positions = np.array([len(output) for output in outputs], np.int64)
        at = Rows(
            host_slots,
            upload(host_slots, device),
            upload(positions, device),
            HostHistory(outputs, prompts, device),
        )
        return self._pipeline.apply(logits, at, upto, out)

    def has_program(self, request: int) -> bool:
        """Say whether a request, by its batch row, has a control program."""
        running = self._running.get(request)
        return running is not None and running.wanted.program is not None

    def wanted_rows(self, count: int) -> dict[int, RowSpec | PlainLogprobs]:
        """Return the row specs of the first ``count`` batch rows, by row."""
        # In the order of the rows, so that no gathering is needed if all are wanted.
        running = ((row, self._running.get(row)) for row in range(count))
        return {
            row: each.wanted.rows
            for row, each in running
            if each is not None and each.wanted.rows is not None
        }

    def alive(self, places: Places) -> torch.Tensor:
        """Return the status of batch rows after the last :meth:`apply`, ``[rows]`` float32."""
        alive = torch.ones(len(places), device=self._pipeline.device)
        if self._alive is not None:
            alive = self._alive[places.rows]
        for at, row in enumerate(places.requests.tolist()):
            running = self._running.get(row)
            if running is not None and self._pipeline.status[running.slot] != ALIVE:
                alive[at] = float(self._pipeline.status[running.slot])
        return alive

    def _start(self, wanted: Wanted, prompt: Sequence[int], output: Sequence[int]) -> _Running:
        slot = self._pipeline.empty
        if wanted.program is not None:
            slot = self._free.pop()
            self._pipeline.set(slot, wanted.program, wanted.patterns, wanted.seed)
        return _Running(slot, wanted, prompt, output)

    def _stop(self, running: _Running) -> None:
        if running.slot != self._pipeline.empty:
            self._pipeline.set(running.slot, None)
            self._free.append(running.slot)

    def _remove(self, row: int) -> None:
        running = self._running.pop(row, None)
        if running is not None:
            self._stop(running)
