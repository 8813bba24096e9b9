"""The adapter for vLLM's V1 model runner: rows move, the host knows every token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from vllm.v1.sample.logits_processor.interface import BatchUpdate, MoveDirectionality

from logit_processors.directions import DIRECTIONS
from logit_processors.host_text import HostText, TextStates
from logit_processors.kernels import warm_up
from logit_processors.places import Places
from logit_processors.processor import ControlProcessor, Wanted, load_vocabulary
from logit_processors.row_spec import BROKEN, PlainLogprobs, RowSpec
from logit_processors.slots import Slots
from logit_processors.suppress import exhausted
from logit_processors.token_sets import TokenSets
from logit_processors.upload import upload


@dataclass
class _Running:
    """A request in the batch. ``slot`` is the empty one if it has no program."""

    slot: int
    wanted: Wanted
    output: Sequence[int]
    text: TextStates | None


class V1ControlProcessor(ControlProcessor):
    """Follows V1's batch and runs its programs."""

    def __init__(self, vllm_config: Any, device: torch.device, _is_pin_memory: bool) -> None:
        warm_up(vllm_config.model_config, device)
        self._vocabulary = load_vocabulary(vllm_config.model_config)
        self._slots = Slots(vllm_config.scheduler_config.max_num_seqs, device, DIRECTIONS)
        self._free = list(range(self._slots.count))
        self._running: dict[int, _Running] = {}
        self._alive: torch.Tensor | None = None
        self._sets = TokenSets(device)

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow the batch: requests removed, added and moved, in that order."""
        if batch_update is None:
            return
        for row in batch_update.removed:
            self._remove(row)
        for row, params, _, output in batch_update.added:
            self._remove(row)
            wanted = Wanted.of(params)
            if wanted != Wanted():
                self._running[row] = self._start(wanted, output)
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
        if any(map(self.has_program, watched)):
            self._run(logits, range(count), logits, forced=True)
        unwatched = np.ones(count, bool)
        unwatched[watched] = False
        # A row's own request decides, not its neighbours in the batch.
        self._alive = ~exhausted(logits) | upload(unwatched, logits.device, torch.bool)
        return logits

    def run_programs(self, logits: torch.Tensor, places: Places) -> torch.Tensor:
        """Return what the programs of some rows of the batch make of their logits."""
        out = torch.empty_like(logits, dtype=torch.float32)
        return self._run(logits, places.requests.tolist(), out, forced=False)

    def _run(
        self, logits: torch.Tensor, rows: Sequence[int], out: torch.Tensor, *, forced: bool
    ) -> torch.Tensor:
        host_slots = np.full(len(rows), self._slots.count, np.int64)
        positions = np.zeros(len(rows), np.int64)
        states: list[tuple[int, TextStates]] = []
        for at, row in enumerate(rows):
            if not self.has_program(row):
                continue
            running = self._running[row]
            host_slots[at] = running.slot
            positions[at] = len(running.output)
            if running.text is not None:
                assert self._vocabulary is not None, "text patterns need a vocabulary"
                running.text.advance(self._vocabulary)
                states.append((at, running.text))
        device = self._slots.device
        at_slots = host_slots, upload(host_slots, device), upload(positions, device)
        self._slots.apply(logits, *at_slots, HostText(states, self._sets), out)
        if forced:
            self._slots.force(out, *at_slots)
        return out

    def has_program(self, request: int) -> bool:
        """Say whether a request, by its batch row, has a control program."""
        running = self._running.get(request)
        return running is not None and running.wanted.program is not None

    def wanted_rows(self, count: int) -> dict[int, RowSpec | PlainLogprobs]:
        """Return what is to be kept of which of the first ``count`` batch rows."""
        # In the order of the rows, in which they need no gathering where all are wanted.
        running = ((row, self._running.get(row)) for row in range(count))
        return {
            row: each.wanted.rows
            for row, each in running
            if each is not None and each.wanted.rows is not None
        }

    def alive(self, places: Places) -> torch.Tensor:
        """Say how the last :meth:`apply` left batch rows, ``[rows]`` float32."""
        alive = torch.ones(len(places), device=self._slots.device)
        if self._alive is not None:
            alive *= self._alive[places.rows]
        for at, row in enumerate(places.requests.tolist()):
            running = self._running.get(row)
            if running is not None and self._slots.broken[running.slot]:
                alive[at] = BROKEN
        return alive

    def _start(self, wanted: Wanted, output: Sequence[int]) -> _Running:
        slot, text = self._slots.count, None
        program = wanted.program
        if program is not None:
            slot = self._free.pop()
            self._slots.set(slot, program)
            if program.text_bias or program.text_suppress:
                text = TextStates(program, wanted.patterns, output)
        return _Running(slot, wanted, output, text)

    def _stop(self, running: _Running) -> None:
        if running.slot != self._slots.count:
            self._slots.set(running.slot, None)
            self._free.append(running.slot)

    def _remove(self, row: int) -> None:
        running = self._running.pop(row, None)
        if running is not None:
            self._stop(running)
