"""The controls of all running requests as tensors, one slot each.

A batch is applied in a handful of operations whatever the requests ask for: each row
looks up its slot's entries. Nothing here reads a device tensor back to the host.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from logit_processors.bias import apply_bias
from logit_processors.device_apply import add_directions, edit_tokens, force_tokens
from logit_processors.directions import Directions
from logit_processors.entries import EntryTable
from logit_processors.force import ForceTable, apply_force
from logit_processors.kernels import has_kernels
from logit_processors.program import Program
from logit_processors.steer import apply_steer
from logit_processors.suppress import apply_suppress
from logit_processors.token_sums import summed_token_bias
from logit_processors.upload import upload

_SUPPRESSED = float("-inf")


class TextControls(Protocol):
    """How a runner applies text patterns: the states of its rows are known only to it."""

    def apply_bias(self, logits: torch.Tensor) -> None:
        """Add the text biases to ``[rows, vocab]`` logits, in place."""

    def apply_suppress(self, logits: torch.Tensor) -> None:
        """Set the tokens that would complete a suppressed text to -inf, in place."""


class Slots:
    """Programs of up to ``count`` requests on one device.

    Slot ``count`` is one more that stays empty, for rows without a program. ``kernels``
    chooses Triton's kernels or torch's operations, their reference, whatever the device; None
    takes kernels where they run.
    """

    def __init__(
        self,
        count: int,
        device: torch.device,
        directions: Directions,
        kernels: bool | None = None,
    ) -> None:
        self.count = count
        self.device = device
        self.programs: list[Program | None] = [None] * (count + 1)
        self.broken: NDArray[np.bool_] = np.zeros(count + 1, bool)
        self._directions = directions
        self._kernels = has_kernels(device) if kernels is None else kernels
        self._bias = EntryTable(count + 1, device)
        self._steer = EntryTable(count + 1, device)
        self._suppress = EntryTable(count + 1, device)
        self._force = ForceTable(count + 1, device)
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
        self._bias.write(slot, summed_token_bias(program.token_bias))
        self._steer.write(slot, [(row, entry.strength, entry.when) for row, entry in held])
        self._suppress.write(
            slot, [(entry.token_id, _SUPPRESSED, entry.when) for entry in program.token_suppress]
        )
        self._force.write(slot, program.force)

    def held(self) -> dict[str, int]:
        """Return how many programs there are, bytes of their patterns, and places of vectors."""
        programs = [program for program in self.programs if program is not None]
        return {
            "programs": len(programs),
            "pattern_bytes": sum(program.pattern_bytes for program in programs),
            "vectors": sum(map(len, self._held)),
        }

    def force(
        self,
        logits: torch.Tensor,
        host_slots: NDArray[np.int64],
        slots: torch.Tensor,
        positions: torch.Tensor,
    ) -> None:
        """Leave rows whose slots force a token at their position that one alone, in place.

        For what the sampler sees: after :meth:`apply`, whose arguments these are.
        """
        if not self._force.used[host_slots].any():
            return
        if self._kernels:
            force_tokens(logits, self._force, slots, positions)
        else:
            apply_force(logits, *self._force.at(slots, positions))

    def apply(
        self,
        logits: torch.Tensor,
        host_slots: NDArray[np.int64],
        slots: torch.Tensor,
        positions: torch.Tensor,
        text: TextControls,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Run every row's program: bias, steer, suppress.

        Args:
            logits: ``[rows, vocab]`` of any float dtype; float32 if worked on in place.
            host_slots: ``[rows]`` the slot of each row, on the host; of any other length, the
                slots that some rows have (which row has which, only the device knows).
            slots: the same on the device, int64.
            positions: ``[rows]`` int, tokens generated before the one being chosen.
            text: the text patterns of these rows.
            out: ``[rows, vocab]`` float32 to write to; ``logits`` themselves if None.

        """
        out = logits if out is None else out
        apply = self._apply_kernels if self._kernels else self._apply_operations
        apply(logits, out, host_slots, slots, positions, text)
        return out

    def _apply_kernels(
        self,
        logits: torch.Tensor,
        out: torch.Tensor,
        host_slots: NDArray[np.int64],
        slots: torch.Tensor,
        positions: torch.Tensor,
        text: TextControls,
    ) -> None:
        # Steering comes first because it is what writes whole rows; biases commute with it.
        if self._steer.used[host_slots].any():
            table = self._directions.table
            add_directions(logits, out, self._steer, table, slots, positions)
        elif out is not logits:
            out.copy_(logits)
        if self._bias.used[host_slots].any():
            edit_tokens(out, self._bias, slots, positions)
        text.apply_bias(out)
        if self._suppress.used[host_slots].any():
            edit_tokens(out, self._suppress, slots, positions)
        text.apply_suppress(out)

    def _apply_operations(
        self,
        logits: torch.Tensor,
        out: torch.Tensor,
        host_slots: NDArray[np.int64],
        slots: torch.Tensor,
        positions: torch.Tensor,
        text: TextControls,
    ) -> None:
        if out is not logits:
            out.copy_(logits)
        if self._bias.used[host_slots].any():
            ids, adds, active = self._bias.at(slots, positions)
            apply_bias(out, ids, adds * active)
        text.apply_bias(out)
        steered = np.flatnonzero(self._steer.used[host_slots])
        if len(steered):
            exact = len(host_slots) == len(out)
            rows = upload(steered if exact else np.arange(len(out)), self.device)
            index, strengths, active = self._steer.at(slots[rows], positions[rows])
            apply_steer(out, rows, self._directions.table, index, strengths * active)
        if self._suppress.used[host_slots].any():
            ids, _, active = self._suppress.at(slots, positions)
            apply_suppress(out, ids, active)
        text.apply_suppress(out)
