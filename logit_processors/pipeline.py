"""The controls of all running requests, each kind in a table of its own."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from logit_processors.control import Phase
from logit_processors.pattern_sets import CompiledPattern
from logit_processors.patterns import Pattern
from logit_processors.program import Program
from logit_processors.registry import controls
from logit_processors.table import EngineFacts, Rows


class Pipeline:
    """Programs of running requests, a slot each; it knows no kind of control.

    The last slot stays empty, for rows without a program. A batch is applied in a handful of
    operations: each row looks up its slot's entries, and nothing is read back to the host.
    """

    def __init__(self, engine: EngineFacts) -> None:
        self.device = engine.device
        self.empty = engine.slots - 1
        self.broken: NDArray[np.bool_] = np.zeros(engine.slots, bool)
        self._programs: list[Program | None] = [None] * engine.slots
        tables = [
            (control, control.table(engine))
            for control in controls()
            if control.phase is not Phase.MODEL
        ]
        # Kinds of a phase commute: one that writes whole rows goes first, instead of a copy.
        self._tables = sorted(tables, key=lambda each: (each[0].phase, not each[1].reads_first))

    def set(
        self,
        slot: int,
        program: Program | None,
        patterns: Mapping[Pattern, CompiledPattern] | None = None,
    ) -> None:
        """Give a slot a new program, or none, overwriting all of the old one.

        A program that lacks a vector, or room for a pattern, makes the slot ``broken``: its request
        must end with an error.
        """
        if self._programs[slot] is not None:
            # First all: the new entries of one kind may need room that those of another held.
            for _, table in self._tables:
                table.write(slot, (), {})
        self._programs[slot] = program
        self.broken[slot] = False
        if program is None:
            return
        for control, table in self._tables:
            entries = program.entries.get(control.name, ())
            if entries and not table.write(slot, entries, patterns or {}):
                self.broken[slot] = True

    def flush(self) -> None:
        """Bring what was written to the device."""
        for _, table in self._tables:
            table.flush()

    def apply(
        self,
        logits: torch.Tensor,
        rows: Rows,
        upto: Phase = Phase.MASK,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Run every row's program up to a phase.

        Args:
            logits: ``[rows, vocab]`` of any float dtype; float32 if worked on in place.
            rows: what they are of.
            upto: the last phase that is run.
            out: ``[rows, vocab]`` float32 to write to; ``logits`` themselves if None.

        """
        self.flush()
        written = logits if out is None else out
        is_begun = written is logits
        for control, table in self._tables:
            if control.phase > upto:
                break
            if not table.used[rows.host_slots].any():
                continue
            if is_begun:
                table.apply(written, rows)
            else:
                table.begin(logits, written, rows)
                is_begun = True
        if not is_begun:
            written.copy_(logits)
        return written

    def warm_up(self, vocab: int, dtype: torch.dtype) -> None:
        """Compile the kernels of all controls for ``vocab`` logits of a dtype."""
        for _, table in self._tables:
            table.warm_up(vocab, dtype)

    def held(self) -> dict[str, int]:
        """Return how many programs there are, bytes of their patterns, and places of vectors."""
        programs = [program for program in self._programs if program is not None]
        return {
            "programs": len(programs),
            "pattern_bytes": sum(program.pattern_bytes for program in programs),
            "vectors": sum(table.held() for _, table in self._tables),
        }
