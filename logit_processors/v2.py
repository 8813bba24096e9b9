"""The adapter for vLLM's V2 model runner: rows have slots, the device knows the tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from logit_processors.controls import Window
from logit_processors.device_text import DeviceText, History, TextRows
from logit_processors.directions import DIRECTIONS
from logit_processors.entries import EntryTable
from logit_processors.kernels import warm_up
from logit_processors.patterns import POOL_BYTES, Automaton
from logit_processors.places import Places
from logit_processors.processor import ControlProcessor, Wanted, load_vocabulary
from logit_processors.program import Program
from logit_processors.row_spec import BROKEN, PlainLogprobs, RowSpec
from logit_processors.slots import Slots
from logit_processors.suppress import exhausted
from logit_processors.token_masks import Key, MaskPool, TokenBytes
from logit_processors.upload import upload


@dataclass(frozen=True)
class Step:
    """The layout of one step: slots ``[requests]`` on the host, ``[rows]`` each on the device.

    With draft tokens there are more rows than requests, and only the device knows whose they are.
    """

    host_slots: NDArray[np.int64]
    slots: torch.Tensor
    last: torch.Tensor
    fed: torch.Tensor
    offset: torch.Tensor


class V2ControlProcessor(ControlProcessor):
    """Keeps a program per slot and runs them without waiting for the device."""

    def __init__(self, vllm_config: Any, req_states: Any) -> None:
        device = req_states.device
        self._states = req_states
        self._slots = Slots(req_states.max_num_reqs, device, DIRECTIONS)
        self._wanted = [Wanted()] * req_states.max_num_reqs
        self._alive: torch.Tensor | None = None
        self._step: Step | None = None
        self._looked_at: torch.Tensor | None = None
        warm_up(vllm_config.model_config, device)
        vocabulary = load_vocabulary(vllm_config.model_config)
        self._patterns: tuple[MaskPool, TokenBytes] | None = None
        if vocabulary is not None:
            pool = MaskPool(vocabulary, device, POOL_BYTES)
            self._patterns = pool, TokenBytes(vocabulary, device)
        self._text_bias = EntryTable(req_states.max_num_reqs + 1, device)
        self._text_suppress = EntryTable(req_states.max_num_reqs + 1, device)
        self._held: list[list[Key]] = [[] for _ in range(req_states.max_num_reqs)]

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Put a request's program into a slot, over whatever was there."""
        self._wanted[req_idx] = wanted = Wanted.of(sampling_params)
        self._slots.set(req_idx, wanted.program)
        self._set_text(req_idx, wanted.program or Program())
        return wanted.watched

    def look_at(self, batch: Any) -> None:
        """Take the layout of the step about to be sampled from vLLM's input batch."""
        index = batch.logits_indices
        self._take(batch, batch.positions[index], batch.input_ids[index])
        self._looked_at = batch.expanded_idx_mapping

    def _take(self, layout: Any, last: torch.Tensor, fed: torch.Tensor) -> None:
        self._step = Step(
            layout.idx_mapping_np.astype(np.int64),
            layout.expanded_idx_mapping.long(),
            last,
            fed,
            layout.expanded_local_pos,
        )
        self._alive = None

    def apply(self, logits: torch.Tensor, ctx: Any) -> torch.Tensor:
        """Run the programs of the step, or of a part of it, on ``[rows, vocab]``, in place."""
        if not any(self._wanted[slot].watched for slot in ctx.idx_mapping_np):
            return logits
        first = self._first_row(ctx.expanded_idx_mapping)
        if first is None:
            self._take(ctx, ctx.pos, ctx.input_ids)
            first = 0
        part = slice(first, first + len(logits))
        self._run(logits, ctx.idx_mapping_np.astype(np.int64), part, logits, forced=True)
        self._note_alive(part, ~exhausted(logits))
        return logits

    def _first_row(self, mapping: torch.Tensor) -> int | None:
        """Return where a part of the step that was looked at begins; None for another step."""
        whole = self._looked_at
        if whole is None:
            return None
        # vLLM verifies drafts in parts, whose mappings are views of the whole step's.
        first = (mapping.data_ptr() - whole.data_ptr()) // whole.element_size()
        return first if 0 <= first < len(whole) else None

    def _note_alive(self, part: slice, alive: torch.Tensor) -> None:
        """Keep what a part of the step says, ``[part]`` bool; parts not told of are alive."""
        assert self._step is not None
        if len(alive) == len(self._step.slots):
            self._alive = alive
            return
        if self._alive is None:
            self._alive = alive.new_ones(len(self._step.slots))
        self._alive[part] = alive

    def run_programs(self, logits: torch.Tensor, places: Places) -> torch.Tensor:
        """Return what the programs of some rows of the step make of their logits."""
        assert self._step is not None
        out = torch.empty_like(logits, dtype=torch.float32)
        host_slots = self._step.host_slots[places.requests]
        return self._run(logits, host_slots, places.rows, out, forced=False)

    def has_program(self, request: int) -> bool:
        """Say whether a request of the step has a control program."""
        assert self._step is not None
        return self._wanted[self._step.host_slots[request]].program is not None

    def wanted_rows(self, count: int) -> dict[int, RowSpec | PlainLogprobs]:
        """Return what is to be kept of which of the step's first ``count`` requests."""
        assert self._step is not None
        wanted = {at: self._wanted[self._step.host_slots[at]].rows for at in range(count)}
        return {at: spec for at, spec in wanted.items() if spec is not None}

    def alive(self, places: Places) -> torch.Tensor:
        """Say how :meth:`apply` left rows of the step, ``[rows]`` float32."""
        assert self._step is not None
        host_slots = self._step.host_slots[places.requests]
        broken = self._slots.broken[host_slots]
        device = self._slots.device
        alive = torch.ones(len(places), device=device)
        if self._alive is not None:
            unwatched = [not self._wanted[slot].watched for slot in host_slots]
            alive *= self._alive[places.rows] | upload(unwatched, device, torch.bool)
        if broken.any():
            alive[upload(np.flatnonzero(broken), device)] = BROKEN
        return alive

    def _run(
        self,
        logits: torch.Tensor,
        host_slots: NDArray[np.int64],
        rows: torch.Tensor | slice,
        out: torch.Tensor,
        *,
        forced: bool,
    ) -> torch.Tensor:
        """Run the programs of rows of the step: of any, by their places, or of a part of it.

        ``host_slots`` are the slots of the rows or, of a part, of its requests.
        """
        step = self._step
        assert step is not None
        slots, last = step.slots[rows], step.last[rows]
        if isinstance(rows, slice):
            rows = torch.arange(rows.start, rows.stop, device=logits.device)
        positions = last + 1 - self._states.prompt_len.gpu[slots]
        text = DeviceText(
            self._patterns,
            self._text_bias if self._text_bias.used[host_slots].any() else None,
            self._text_suppress if self._text_suppress.used[host_slots].any() else None,
            TextRows(rows, slots, last, positions),
            History(step.fed, step.offset, self._states.all_token_ids.gpu),
        )
        self._slots.apply(logits, host_slots, slots, positions, text, out)
        if forced:
            self._slots.force(out, host_slots, slots, positions)
        return out

    def _set_text(self, slot: int, program: Program) -> None:
        for key in self._held[slot]:
            self._mask_pool().release(key)
        self._held[slot] = []
        self._text_bias.write(
            slot,
            [
                (number, entry.add, entry.when)
                for entry in program.text_bias
                if (number := self._hold(slot, entry.text, entry.ignore_case, True)) is not None
            ],
        )
        never = float("-inf")
        suppressed: list[tuple[int, float, Window]] = []
        for entry in program.text_suppress:
            number = self._hold(slot, entry.text, entry.ignore_case, False)
            if number is not None:
                suppressed.append((number, never, entry.when))
        self._text_suppress.write(slot, suppressed)

    def _hold(self, slot: int, text: str, ignore_case: bool, advancing: bool) -> int | None:
        """Return the pool's number of a pattern; without room the slot is broken."""
        automaton = Automaton.of(text, ignore_case=ignore_case)
        held = self._mask_pool().acquire(automaton, advancing=advancing)
        if held is None:
            self._let_go(slot)
            held = self._mask_pool().acquire(automaton, advancing=advancing)
        if held is None:
            self._slots.broken[slot] = True
            return None
        key, number = held
        self._held[slot].append(key)
        return number

    def _let_go(self, but: int) -> None:
        """Release the patterns of requests that have ended: nobody else tells of their end."""
        for slot, keys in enumerate(self._held):
            if slot != but and slot not in self._states.index_to_req_id:
                while keys:
                    self._mask_pool().release(keys.pop())

    def _mask_pool(self) -> MaskPool:
        assert self._patterns is not None, "text patterns need a vocabulary"
        return self._patterns[0]
