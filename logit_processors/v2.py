"""The adapter for vLLM's V2 model runner: rows have slots, tokens are on the device."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from logit_processors.control import Phase
from logit_processors.device_text import DeviceTexts
from logit_processors.directions import DIRECTIONS
from logit_processors.exhausted import exhausted
from logit_processors.history import DeviceHistory
from logit_processors.host_text import HostTexts
from logit_processors.kernels import has_kernels, warm_up
from logit_processors.pipeline import Pipeline
from logit_processors.places import Places
from logit_processors.processor import ControlProcessor, Wanted, load_vocabulary
from logit_processors.row_spec import ALIVE, PlainLogprobs, RowSpec
from logit_processors.table import EngineFacts, Rows
from logit_processors.texts import Texts
from logit_processors.upload import upload


@dataclass(frozen=True)
class Step:
    """The layout of one step: ``[rows]`` each on the device; on the host, by request.

    ``host_slots`` ``[requests]`` and ``first_rows`` ``[requests + 1]``. With draft tokens
    there are more rows than requests, and only the device has each row's request.
    """

    host_slots: NDArray[np.int64]
    first_rows: NDArray[np.integer[Any]]
    slots: torch.Tensor
    last: torch.Tensor
    fed: torch.Tensor
    offset: torch.Tensor


class V2ControlProcessor(ControlProcessor):
    """Keeps a program per slot and runs them without waiting for the device."""

    def __init__(self, vllm_config: Any, req_states: Any) -> None:
        device = req_states.device
        self._states = req_states
        slots = req_states.max_num_reqs + 1
        vocabulary = load_vocabulary(vllm_config.model_config)
        texts: Texts = HostTexts(None, device)
        if vocabulary is not None:
            texts = DeviceTexts(vocabulary, device)
        self._pipeline = Pipeline(
            EngineFacts(slots, device, has_kernels(device), DIRECTIONS, texts)
        )
        warm_up(vllm_config.model_config, self._pipeline)
        self._wanted = [Wanted()] * req_states.max_num_reqs
        self._watched: NDArray[np.bool_] = np.zeros(req_states.max_num_reqs, bool)
        self._alive: torch.Tensor | None = None
        self._step: Step | None = None
        self._controlled: set[int] = set()

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Put a request's program into a slot; replace the slot's old program."""
        wanted = Wanted.of(sampling_params)
        self._set(req_idx, wanted)
        return wanted.watched

    def end_all_but(self, running: Container[int]) -> None:
        """Release the resources of slots without a running request.

        vLLM does not report the end of a slot's request: the slot is only not in use.
        """
        for slot in [slot for slot in self._controlled if slot not in running]:
            self._set(slot, Wanted())

    def _set(self, slot: int, wanted: Wanted) -> None:
        self._wanted[slot] = wanted
        self._watched[slot] = wanted.watched
        if wanted.program is None:
            self._controlled.discard(slot)
        else:
            self._controlled.add(slot)
        self._pipeline.set(slot, wanted.program, wanted.patterns, wanted.seed)

    def apply_staged_writes(self) -> None:
        """Copy new requests' programs to the device, before the model runs."""
        self._pipeline.flush()

    def look_at(self, batch: Any) -> None:
        """Read the layout of the next step to sample from vLLM's input batch."""
        index = batch.logits_indices
        self._step = Step(
            batch.idx_mapping_np.astype(np.int64),
            batch.cu_num_logits_np,
            batch.expanded_idx_mapping.long(),
            batch.positions[index],
            batch.input_ids[index],
            batch.expanded_local_pos,
        )
        self._alive = None

    def apply(self, logits: torch.Tensor, ctx: Any) -> torch.Tensor:
        """Run the programs of the step, or of a part of it, on ``[rows, vocab]``, in place."""
        if not self._watched[ctx.idx_mapping_np].any():
            return logits
        first = self._first_row(ctx.idx_mapping_np)
        part = slice(first, first + len(logits))
        self._run(logits, ctx.idx_mapping_np.astype(np.int64), part, Phase.FORCE, None)
        self._note_alive(part, self._pipeline.outcome(~exhausted(logits)))
        return logits

    def _first_row(self, slots: NDArray[np.integer[Any]]) -> int:
        """Return the first row of a part of the step, found by the slots of its requests.

        vLLM verifies many drafts in parts of whole requests, in the order of the step.
        """
        assert self._step is not None
        request = np.flatnonzero(self._step.host_slots == slots[0])[0]
        return int(self._step.first_rows[request])

    def _note_alive(self, part: slice, alive: torch.Tensor) -> None:
        """Record the status of a part of the step, ``[part]`` float32; other parts are ALIVE."""
        assert self._step is not None
        if len(alive) == len(self._step.slots):
            self._alive = alive
            return
        if self._alive is None:
            self._alive = alive.new_ones(len(self._step.slots))
        self._alive[part] = alive

    def run_programs(self, logits: torch.Tensor, places: Places) -> torch.Tensor:
        """Return the controlled logits of some rows of the step."""
        assert self._step is not None
        out = torch.empty_like(logits, dtype=torch.float32)
        host_slots = self._step.host_slots[places.requests]
        return self._run(logits, host_slots, places.rows, Phase.MASK, out)

    def has_program(self, request: int) -> bool:
        """Say whether a request of the step has a control program."""
        assert self._step is not None
        return self._wanted[self._step.host_slots[request]].program is not None

    def wanted_rows(self, count: int) -> dict[int, RowSpec | PlainLogprobs]:
        """Return the row specs of the step's first ``count`` requests, by request."""
        assert self._step is not None
        wanted = {at: self._wanted[self._step.host_slots[at]].rows for at in range(count)}
        return {at: spec for at, spec in wanted.items() if spec is not None}

    def alive(self, places: Places) -> torch.Tensor:
        """Return the status of the step's rows after :meth:`apply`, ``[rows]`` float32."""
        assert self._step is not None
        host_slots = self._step.host_slots[places.requests]
        status = self._pipeline.status[host_slots]
        device = self._pipeline.device
        alive = torch.ones(len(places), device=device)
        if self._alive is not None:
            unwatched = upload(~self._watched[host_slots], device, torch.bool)
            alive = torch.where(unwatched, alive, self._alive[places.rows])
        faulty = np.flatnonzero(status != ALIVE)
        if len(faulty):
            codes = upload(status[faulty].tolist(), device, torch.float32)
            alive[upload(faulty, device)] = codes
        return alive

    def _run(
        self,
        logits: torch.Tensor,
        host_slots: NDArray[np.int64],
        rows: torch.Tensor | slice,
        upto: Phase,
        out: torch.Tensor | None,
    ) -> torch.Tensor:
        """Run the programs on any rows of the step, by their places, or on a part of the step.

        ``host_slots`` are the slots of the rows, or of the requests of a part.
        """
        step = self._step
        assert step is not None
        slots, newest = step.slots[rows], step.last[rows]
        if isinstance(rows, slice):
            rows = torch.arange(rows.start, rows.stop, device=logits.device)
        positions = newest + 1 - self._states.prompt_len.gpu[slots]
        history = DeviceHistory(
            step.fed,
            step.offset,
            self._states.all_token_ids.gpu,
            rows,
            slots,
            newest,
            positions,
        )
        return self._pipeline.apply(logits, Rows(host_slots, slots, positions, history), upto, out)
