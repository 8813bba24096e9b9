"""The controls of all running requests, one table per kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from logit_processors.control import Control, Phase
from logit_processors.foreign import ForeignTable
from logit_processors.pattern_sets import CompiledPattern
from logit_processors.patterns import Pattern
from logit_processors.program import Program
from logit_processors.registry import controls, failed_code, is_foreign
from logit_processors.row_spec import ALIVE, BROKEN
from logit_processors.table import EngineFacts, Rows, Table
from logit_processors.upload import upload


class Pipeline:
    """The programs of running requests by slot; independent of the kinds of control.

    The last slot stays empty, for rows without a program. A batch takes a few operations: each row
    looks up its slot's entries, and nothing is read back to the host.

    ``status`` ``[slots]`` float32 is ALIVE. For a request that must end with an error it is BROKEN
    (a vector or memory for a pattern is missing) or the code of the plugin that failed. ``failed``
    ``[rows]`` float32 holds 0 or a plugin's code for each row of the last application; None if
    no plugin failed.

    Args:
        engine: the engine's facts.
        kinds: the controls, without the guard around plugins; by default all registered ones.

    """

    def __init__(self, engine: EngineFacts, kinds: Sequence[Control[Any]] = ()) -> None:
        self.device = engine.device
        self.empty = engine.slots - 1
        self.status: NDArray[np.float32] = np.full(engine.slots, ALIVE, np.float32)
        self.failed: torch.Tensor | None = None
        self._programs: list[Program | None] = [None] * engine.slots
        self._seeds = engine.seeds
        self._host_seeds: NDArray[np.int64] = np.zeros(engine.slots, np.int64)
        self._new_seeds: dict[int, int] = {}
        tables = [
            (control, control.table(engine) if kinds else _guarded(control, engine))
            for control in kinds or controls()
            if control.phase is not Phase.MODEL
        ]
        # Kinds of ADD commute: a kind that writes whole rows goes first and saves a copy.
        self._tables = sorted(tables, key=lambda each: (each[0].phase, not each[1].reads_first))

    def set(
        self,
        slot: int,
        program: Program | None,
        patterns: Mapping[Pattern, CompiledPattern] | None = None,
        seed: int = 0,
    ) -> None:
        """Give a slot a new program, or none; replace the old one.

        Args:
            slot: a request's slot.
            program: the request's program.
            patterns: its text patterns, compiled.
            seed: the seed of its controls' random numbers.

        """
        if self._programs[slot] is not None:
            # Clear all kinds first: new entries may need memory that another kind's old ones hold.
            for _, table in self._tables:
                table.write(slot, (), {})
        self._programs[slot] = program
        if seed != self._host_seeds[slot]:
            self._host_seeds[slot] = self._new_seeds[slot] = seed
        self.status[slot] = ALIVE
        if program is None:
            return
        for control, table in self._tables:
            entries = program.entries.get(control.name, ())
            if entries and not table.write(slot, entries, patterns or {}):
                is_plugin = isinstance(table, ForeignTable)
                self.status[slot] = failed_code(control.name) if is_plugin else BROKEN

    def flush(self) -> None:
        """Copy changes to the device."""
        if self._new_seeds:
            slots = upload([*self._new_seeds], self.device)
            self._seeds[slots] = upload([*self._new_seeds.values()], self.device)
            self._new_seeds.clear()
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
            rows: the rows of the logits.
            upto: the last phase that is run.
            out: ``[rows, vocab]`` float32 to write to; ``logits`` themselves if None.

        """
        self.flush()
        self.failed = None
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
            if isinstance(table, ForeignTable) and table.failed is not None:
                self._note(control, table.failed)
        if not is_begun:
            written.copy_(logits)
        return written

    def outcome(self, alive: torch.Tensor) -> torch.Tensor:
        """Return the status of rows after the last application, ``[rows]`` float32.

        Args:
            alive: ``[rows]`` bool, True if a token is left.

        """
        if self.failed is None:
            return alive.float()
        return torch.where(self.failed < 0, self.failed, alive.float())

    def _note(self, control: Control[Any], failed: torch.Tensor) -> None:
        codes = failed.float() * failed_code(control.name)
        self.failed = codes if self.failed is None else torch.minimum(self.failed, codes)

    def warm_up(self, vocab: int, dtype: torch.dtype) -> None:
        """Compile the kernels of all controls for ``vocab`` logits of a dtype."""
        for _, table in self._tables:
            table.warm_up(vocab, dtype)

    def held(self) -> dict[str, int]:
        """Return the number of programs, of bytes of their patterns, and of held vectors."""
        programs = [program for program in self._programs if program is not None]
        return {
            "programs": len(programs),
            "pattern_bytes": sum(program.pattern_bytes for program in programs),
            "vectors": sum(table.held() for _, table in self._tables),
        }


def _guarded(control: Control[Any], engine: EngineFacts) -> Table[Any]:
    table = control.table(engine)
    return ForeignTable(control, table) if is_foreign(control) else table
