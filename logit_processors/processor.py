"""The logits processor that vLLM loads: thin adapters around :class:`Slots`.

One class serves both of vLLM's model runners. V1 names rows by their place in the batch
and tells when requests come, go and move; V2 names them by a slot that it hands out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.v1.sample.logits_processor.interface import BatchUpdate, MoveDirectionality
from vllm.v1.sample.logits_processor.interface import LogitsProcessor as V1LogitsProcessor

from logit_processors.controls import WIRE_KEY, ControlError, Program
from logit_processors.directions import DIRECTIONS
from logit_processors.host_text import HostText, TextStates
from logit_processors.patterns import TokenSets
from logit_processors.row_spec import PlainLogprobs, RowSpec
from logit_processors.slots import Slots
from logit_processors.suppress import exhausted
from logit_processors.vocabulary import Vocabulary


@dataclass(frozen=True)
class Wanted:
    """What one request asks of its rows: a program to run and something to see."""

    program: Program | None
    rows: RowSpec | PlainLogprobs | None

    @classmethod
    def of(cls, sampling_params: Any) -> Wanted:
        """Read a request's ``SamplingParams``.

        Raises:
            ControlError: ``extra_args`` hold a program or row spec that cannot be.

        """
        wire = (sampling_params.extra_args or {}).get(WIRE_KEY)
        if wire is None:
            return cls(None, _plain_logprobs(sampling_params))
        if not isinstance(wire, dict):
            raise ControlError(WIRE_KEY, f"an object is expected, not {type(wire).__name__}")
        program = Program.from_wire(wire["program"]) if wire.get("program") else None
        rows = RowSpec.from_wire(wire["rows"]) if wire.get("rows") else None
        return cls(program, rows or _plain_logprobs(sampling_params))


def _plain_logprobs(sampling_params: Any) -> PlainLogprobs | None:
    token_ids = tuple(sampling_params.logprob_token_ids or ())
    if token_ids:
        return PlainLogprobs(0, token_ids)
    count = sampling_params.num_logprobs
    return None if count is None else PlainLogprobs(count)


@dataclass
class _Running:
    """A request in V1's batch."""

    slot: int
    wanted: Wanted
    output: Sequence[int]
    text: TextStates | None


class ControlProcessor(V1LogitsProcessor):
    """Runs each request's control program on its rows."""

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Refuse a request whose program cannot be, before the engine sees it."""
        Wanted.of(sampling_params)

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        model_config = vllm_config.model_config
        width = model_config.get_vocab_size()
        tokenizer = cached_tokenizer_from_config(model_config)
        self._vocabulary = Vocabulary.from_tokenizer(tokenizer, width) if tokenizer else None
        self._width = width
        self._pin_memory = is_pin_memory
        self._slots = Slots(vllm_config.scheduler_config.max_num_seqs, device, DIRECTIONS)
        self._free = list(range(self._slots.count))
        self._running: dict[int, _Running] = {}
        self._alive: torch.Tensor | None = None
        if self._vocabulary is not None:
            self._sets = TokenSets(
                self._vocabulary, lambda ids: torch.from_numpy(ids).to(device)
            )

    def is_argmax_invariant(self) -> bool:
        """Control changes which token is the likeliest."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow the batch: requests removed, added and moved, in that order."""
        if batch_update is None:
            return
        for row in batch_update.removed:
            self._remove(row)
        for row, params, _, output in batch_update.added:
            self._remove(row)
            wanted = Wanted.of(params)
            if wanted.program is not None or wanted.rows is not None:
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
        rows = range(len(logits))
        if any(row in self._running and self._running[row].wanted.program for row in rows):
            self.run_programs(logits, rows)
            self._alive = ~exhausted(logits)
        return logits

    def run_programs(self, logits: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """Run the programs of some rows of the batch on their logits, in place.

        Args:
            logits: ``[len(rows), vocab]`` float32.
            rows: the batch row behind each row of ``logits``.

        """
        host_slots = np.full(len(rows), self._slots.count, np.int64)
        positions = np.zeros(len(rows), np.int64)
        states: list[tuple[int, TextStates]] = []
        for at, row in enumerate(rows):
            running = self._running.get(row)
            if running is None or running.wanted.program is None:
                continue
            host_slots[at] = running.slot
            positions[at] = len(running.output)
            if running.text is not None:
                assert self._vocabulary is not None
                running.text.advance(self._vocabulary)
                states.append((at, running.text))
        text = HostText(states, self._sets if states else None)
        return self._slots.apply(
            logits,
            host_slots,
            self._upload(host_slots),
            self._upload(positions),
            text,
            self._upload,
        )

    def has_program(self, row: int) -> bool:
        """Say whether a batch row's request has a control program."""
        running = self._running.get(row)
        return running is not None and running.wanted.program is not None

    def wanted_rows(self, rows: int) -> dict[int, RowSpec | PlainLogprobs]:
        """Return what is to be kept of which of the first ``rows`` batch rows."""
        return {
            row: running.wanted.rows
            for row, running in self._running.items()
            if row < rows and running.wanted.rows is not None
        }

    def alive(self, rows: Sequence[int]) -> torch.Tensor:
        """Say which batch rows had a token left after the last :meth:`apply`: float32 0 or 1."""
        alive = torch.ones(len(rows), device=self._slots.device)
        if self._alive is not None:
            alive *= self._alive[torch.tensor(list(rows), device=alive.device)]
        for at, row in enumerate(rows):
            running = self._running.get(row)
            if running is not None and self._slots.broken[running.slot]:
                alive[at] = 0
        return alive

    def _start(self, wanted: Wanted, output: Sequence[int]) -> _Running:
        slot, text = self._slots.count, None
        program = wanted.program
        if program is not None:
            slot = self._free.pop()
            self._slots.set(slot, program)
            if program.text_bias or program.text_suppress:
                text = TextStates(program, output)
        return _Running(slot, wanted, output, text)

    def _stop(self, running: _Running) -> None:
        if running.slot != self._slots.count:
            self._slots.set(running.slot, None)
            self._free.append(running.slot)

    def _remove(self, row: int) -> None:
        running = self._running.pop(row, None)
        if running is not None:
            self._stop(running)

    def _upload(self, values: np.ndarray[Any, np.dtype[np.int64]]) -> torch.Tensor:
        tensor = torch.from_numpy(values)
        if self._pin_memory:
            tensor = tensor.pin_memory()
        return tensor.to(self._slots.device, non_blocking=True)
