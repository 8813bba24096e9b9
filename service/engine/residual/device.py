"""The op's work on a GPU: static tables, and one kernel that reads them.

Each running request that steers has a slot with its entries. A step only writes each token's slot
and its position in the request. The kernel does the rest, so that a step's cost does not depend
on its requests, and the host never waits for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from vllm.triton_utils import tl, triton

from logit_processors.controls.steer import MAX_RESIDUAL_ENTRIES
from logit_processors.residual import MAX_CAPTURED
from logit_processors.upload import upload
from service.engine.residual.bank import Bank
from service.engine.residual.followed import Followed, Row
from service.engine.residual.step import StepLayout

_BLOCK = 1024


@triton.jit
def _stream_kernel(  # type: ignore[no-untyped-def]
    hidden,  # [tokens, size], added to in place
    hidden_stride,
    other,  # [tokens, size], if HAS_OTHER
    other_stride,
    size,
    layer,  # [1] int32: the layer's place in the tables
    layers,
    token_slots,  # [tokens] int32, 0 where there is nothing to do
    token_positions,  # [tokens] int32, from the request's first token
    token_places,  # [tokens] int32: where to copy the token to, or -1
    prompt_lens,  # [slots] int32
    counts,  # [slots] int32
    rows,  # [slots, entries] int32: rows of the bank
    windows,  # [slots, entries, 2] int32
    strengths,  # [slots, entries, layers] float32
    bank,  # [capacity, layers, size]
    captured,  # [layers, places, size] float32
    HAS_OTHER: tl.constexpr,  # noqa: N803 - Triton's way to name constants
    ENTRIES: tl.constexpr,  # noqa: N803
    PLACES: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
):
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(token_slots + token).to(tl.int64)
    if slot == 0:
        return
    at = tl.load(layer).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < size
    position = tl.load(token_positions + token) + 1 - tl.load(prompt_lens + slot)
    count = tl.load(counts + slot)
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    added = 0
    number = 0
    while number < count:
        entry = slot * ENTRIES + number
        strength = tl.load(strengths + entry * layers + at)
        after = position >= tl.load(windows + entry * 2)
        before = position < tl.load(windows + entry * 2 + 1)
        if (strength != 0.0) & after & before:
            row = tl.load(rows + entry).to(tl.int64)
            vector = tl.load(bank + (row * layers + at) * size + column, mask=inside, other=0.0)
            total += strength * vector.to(tl.float32)
            added = 1
        number += 1
    where = hidden + token * hidden_stride + column
    stream = tl.load(where, mask=inside, other=0.0)
    if added != 0:
        stream = (stream.to(tl.float32) + total).to(stream.dtype)
        tl.store(where, stream, mask=inside)
    place = tl.load(token_places + token).to(tl.int64)
    if place >= 0:
        copy = stream.to(tl.float32)
        if HAS_OTHER:
            rest = tl.load(other + token * other_stride + column, mask=inside, other=0.0)
            copy += rest.to(tl.float32)
        tl.store(captured + (at * PLACES + place) * size + column, copy, mask=inside)


class DeviceBuffers:
    """The static tensors of the kernel. Slot 0 stays empty.

    ``captured`` ``[layers, places, hidden]`` float32 holds the copies of the last step.
    """

    def __init__(self, bank: Bank, slots: int, tokens: int) -> None:
        _, layers, size = bank.table.shape
        device = bank.table.device
        self._table = bank.table
        self._owners: dict[int, Followed] = {}
        self._free = list(range(slots, 0, -1))
        entries = (slots + 1, MAX_RESIDUAL_ENTRIES)
        self._prompt_lens = torch.zeros(slots + 1, dtype=torch.int32, device=device)
        self._counts = torch.zeros(slots + 1, dtype=torch.int32, device=device)
        self._rows = torch.zeros(entries, dtype=torch.int32, device=device)
        self._windows = torch.zeros(*entries, 2, dtype=torch.int32, device=device)
        self._strengths = torch.zeros(*entries, layers, device=device)
        self._numbers = torch.arange(tokens, dtype=torch.int32, device=device)
        self._token_slots = torch.zeros(tokens, dtype=torch.int32, device=device)
        self._token_positions = torch.zeros(tokens, dtype=torch.int32, device=device)
        self._token_places = torch.full((tokens,), -1, dtype=torch.int32, device=device)
        self.captured = torch.zeros(layers, MAX_CAPTURED, size, device=device)
        self._filled = self._copies = False

    @property
    def bytes(self) -> int:
        """Bytes of the buffers."""
        return sum(v.nbytes for v in vars(self).values() if isinstance(v, torch.Tensor))

    def fill(self, rows: Sequence[Row], places: Sequence[int], layout: StepLayout) -> None:
        """Prepare a step.

        Args:
            rows: the tokens of the tracked requests.
            places: the step's tokens to capture, in the order of their places.
            layout: the whole step.

        """
        present = {row.request.slot for row in rows}
        for row in rows:
            if row.request.slot is None:
                self._enter(row.request, present)
        slot_of_start = {row.start: row.request.slot or 0 for row in rows}
        # One more bound, for the padding after the last request.
        slots = [slot_of_start.get(start, 0) for start in layout.starts[:-1].tolist()] + [0]
        ends = layout.query_start_loc[1:].contiguous()
        request = torch.searchsorted(ends, self._numbers, right=True)
        device = self._numbers.device
        self._token_slots.copy_(upload(slots, device)[request])
        count = min(len(layout.positions), len(self._token_positions))
        self._token_positions[:count] = layout.positions[:count]
        if places:
            index = upload(places, device)
            self._token_places[index] = self._numbers[: len(places)]
        self._filled, self._copies = True, bool(places)

    def apply(self, hidden: torch.Tensor, other: torch.Tensor | None, layer: torch.Tensor) -> None:
        """Do the op's work after a layer.

        Args:
            hidden: ``[tokens, hidden]``, added to in place.
            other: the rest of the stream, ``[tokens, hidden]``, if there is one.
            layer: the layer's index among this rank's layers, one int32 on the device.

        """
        if self.is_idle(0):  # each layer is as idle as any other
            return
        tokens, size = hidden.shape
        rest = hidden if other is None else other
        _stream_kernel[(tokens, triton.cdiv(size, _BLOCK))](
            hidden,
            hidden.stride(0),
            rest,
            rest.stride(0),
            size,
            layer,
            self._table.shape[1],
            self._token_slots,
            self._token_positions,
            self._token_places,
            self._prompt_lens,
            self._counts,
            self._rows,
            self._windows,
            self._strengths,
            self._table,
            self.captured,
            HAS_OTHER=other is not None,
            ENTRIES=MAX_RESIDUAL_ENTRIES,
            PLACES=MAX_CAPTURED,
            BLOCK=_BLOCK,
        )

    def is_idle(self, _at: int) -> bool:
        """Return False while hooks exist: on a GPU the kernel must be in every graph."""
        return not self._filled and self._numbers.device.type == "cpu"

    def clear(self) -> None:
        """Do nothing until the next step is filled."""
        if self._filled:
            self._token_slots.zero_()
        if self._copies:
            self._token_places.fill_(-1)
        self._filled = self._copies = False

    def forget(self, request: Followed) -> None:
        """Free the slot of a request that has ended."""
        if request.slot is not None:
            del self._owners[request.slot]
            self._free.append(request.slot)
            request.slot = None

    def _enter(self, request: Followed, present: set[int | None]) -> None:
        """Give a request a slot, if necessary that of a preempted request."""
        if not self._free:
            absent = next(o for slot, o in self._owners.items() if slot not in present)
            self.forget(absent)
        slot = request.slot = self._free.pop()
        self._owners[slot] = request
        present.add(slot)
        self._write(slot, request)

    def _write(self, slot: int, request: Followed) -> None:
        entries = request.steering
        self._put(self._prompt_lens[slot : slot + 1], np.array([request.prompt_len]))
        self._put(self._counts[slot : slot + 1], np.array([len(entries)]))
        if not entries:
            return
        count = len(entries)
        self._put(self._rows[slot, :count], np.array([e.row for e in entries]))
        windows = np.array([(e.start, e.stop) for e in entries])
        self._put(self._windows[slot, :count], windows)
        self._put(self._strengths[slot, :count], np.array([e.strengths for e in entries]))

    @staticmethod
    def _put(target: torch.Tensor, values: np.ndarray[Any, Any]) -> None:
        source = torch.from_numpy(values).to(target.dtype)
        if target.is_cuda:
            source = source.pin_memory()
        target.copy_(source, non_blocking=True)
