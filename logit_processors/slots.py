"""The controls of all running requests as tensors, one slot each.

A batch is applied in a handful of operations whatever the requests ask for: each row
looks up its slot's entries. Nothing here reads a device tensor back to the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from logit_processors.bias import apply_bias
from logit_processors.controls import Program, Window
from logit_processors.directions import Directions
from logit_processors.steer import apply_steer
from logit_processors.suppress import apply_suppress
from logit_processors.upload import upload

_NO_END = np.iinfo(np.int32).max


class EntryTable:
    """Entries of one kind per slot: an id, a value and a window each, padded with nothing.

    The width is that of the longest list so far, in powers of two.
    """

    def __init__(self, slots: int, device: torch.device) -> None:
        self.used: NDArray[np.bool_] = np.zeros(slots, bool)
        self._ids = torch.zeros(slots, 4, dtype=torch.int64, device=device)
        self._values = torch.zeros(slots, 4, dtype=torch.float32, device=device)
        # A stop of 0 covers no position: the padding.
        self._windows = torch.zeros(slots, 4, 2, dtype=torch.int32, device=device)

    def write(self, slot: int, entries: Sequence[tuple[int, float, Window]]) -> None:
        """Replace the entries of a slot by (id, value, window) tuples."""
        if not entries and not self.used[slot]:
            return
        self.used[slot] = bool(entries)
        self._windows[slot].zero_()
        if not entries:
            return
        if len(entries) > self._ids.shape[1]:
            self._widen(len(entries))
        count = len(entries)
        ids, values, windows = zip(*entries, strict=True)
        bounds = [(w.start, _NO_END if w.stop is None else w.stop) for w in windows]
        for table, column in ((self._ids, ids), (self._values, values), (self._windows, bounds)):
            table[slot, :count] = upload(column, table.device, table.dtype)

    def at(
        self, slots: torch.Tensor, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return ids, values and whether they apply now, for rows at given positions.

        ``[rows]`` int64 and ``[rows]`` int -> three ``[rows, width]``: int64, float32, bool.
        """
        windows = self._windows[slots]
        at = positions.unsqueeze(1)
        active = (windows[..., 0] <= at) & (at < windows[..., 1])
        return self._ids[slots], self._values[slots], active

    def _widen(self, count: int) -> None:
        width = 1 << (count - 1).bit_length()
        for name in ("_ids", "_values", "_windows"):
            old = getattr(self, name)
            new = old.new_zeros((old.shape[0], width, *old.shape[2:]))
            new[:, : old.shape[1]] = old
            setattr(self, name, new)


class TextControls(Protocol):
    """How a runner applies text patterns: the states of its rows are known only to it."""

    def apply_bias(self, logits: torch.Tensor) -> None:
        """Add the text biases to ``[rows, vocab]`` logits, in place."""

    def apply_suppress(self, logits: torch.Tensor) -> None:
        """Set the tokens that would complete a suppressed text to -inf, in place."""


class Slots:
    """Programs of up to ``count`` requests on one device.

    Slot ``count`` is one more that stays empty, for rows without a program.
    """

    def __init__(self, count: int, device: torch.device, directions: Directions) -> None:
        self.count = count
        self.device = device
        self.programs: list[Program | None] = [None] * (count + 1)
        self.broken: NDArray[np.bool_] = np.zeros(count + 1, bool)
        self._directions = directions
        self._bias = EntryTable(count + 1, device)
        self._steer = EntryTable(count + 1, device)
        self._suppress = EntryTable(count + 1, device)
        self._held: list[list[int]] = [[] for _ in range(count + 1)]

    def set(self, slot: int, program: Program | None) -> None:
        """Give a slot a new program, or none, overwriting all of the old one.

        A program whose vector is not on this worker makes the slot ``broken``: its request
        must end with an error.
        """
        for row in self._held[slot]:
            self._directions.release(row)
        self.programs[slot] = program
        program = program or Program()
        steered = [(self._directions.acquire(entry.vector), entry) for entry in program.steer]
        held = [(row, entry) for row, entry in steered if row is not None]
        self._held[slot] = [row for row, _ in held]
        self.broken[slot] = len(held) < len(steered)
        self._bias.write(slot, program.summed_token_bias())
        self._steer.write(slot, [(row, entry.strength, entry.when) for row, entry in held])
        self._suppress.write(
            slot, [(entry.token_id, 0.0, entry.when) for entry in program.token_suppress]
        )

    def apply(
        self,
        logits: torch.Tensor,
        host_slots: NDArray[np.int64],
        slots: torch.Tensor,
        positions: torch.Tensor,
        text: TextControls,
    ) -> torch.Tensor:
        """Run every row's program: bias, steer, suppress, in place.

        Args:
            logits: ``[rows, vocab]`` float32.
            host_slots: ``[rows]`` the slot of each row, on the host; of any other length, the
                slots that some rows have (which row has which, only the device knows).
            slots: the same on the device, int64.
            positions: ``[rows]`` int, tokens generated before the one being chosen.
            text: the text patterns of these rows.

        """
        if self._bias.used[host_slots].any():
            ids, adds, active = self._bias.at(slots, positions)
            apply_bias(logits, ids, adds * active)
        text.apply_bias(logits)
        steered = np.flatnonzero(self._steer.used[host_slots])
        if len(steered):
            exact = len(host_slots) == len(logits)
            rows = upload(steered if exact else np.arange(len(logits)), self.device)
            index, strengths, active = self._steer.at(slots[rows], positions[rows])
            apply_steer(logits, rows, self._directions.table, index, strengths * active)
        if self._suppress.used[host_slots].any():
            ids, _, active = self._suppress.at(slots, positions)
            apply_suppress(logits, ids, active)
        text.apply_suppress(logits)
        return logits
