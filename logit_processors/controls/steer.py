"""``steer``: a push along a stored vector, at the logits or in the residual stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from logit_processors.checks import ControlError, require, shown
from logit_processors.control import (
    Control,
    Entry,
    Phase,
    Server,
    When,
    WindowedEntry,
    check_generated,
)
from logit_processors.device_apply import add_directions
from logit_processors.pattern_sets import CompiledPattern
from logit_processors.patterns import Pattern
from logit_processors.slot_lists import ListedTable
from logit_processors.table import EngineFacts, Rows, Table
from logit_processors.upload import upload

MAX_STRENGTH = 1000.0
"""Largest absolute strength at the logits, in standard deviations of logits."""
MAX_RESIDUAL_STRENGTH = 10_000.0
"""Largest absolute strength in the residual stream, in multiples of the vector."""
MAX_RESIDUAL_ENTRIES = 16
"""Entries at the residual stream of one request."""
MAX_LAYERS = 4096


class SteerEntry(WindowedEntry):
    """Push along a stored vector: the whole distribution, or the residual stream."""

    vector: str = Field(min_length=1, description="Name of a stored vector.")
    strength: float = Field(
        ge=-MAX_RESIDUAL_STRENGTH,
        le=MAX_RESIDUAL_STRENGTH,
        description="At the logits: standard deviations of logits, within ±1000. In the "
        "residual stream: the factor of the vector, which is not rescaled.",
    )
    at: Literal["logits", "residual"] = Field("logits", description="Where it acts.")
    layers: list[Annotated[int, Field(ge=0, lt=MAX_LAYERS)]] | None = Field(
        None,
        min_length=1,
        description="In the residual stream: decoder layers, counted from 0, after which it is "
        "added; null means all that the vector carries.",
    )
    when: When | None = Field(
        None, description="Where it applies; null means everywhere, the prompt included."
    )

    @model_validator(mode="after")
    def _fits_its_place(self) -> Self:
        if self.at == "logits":
            if self.layers is not None:
                raise ValueError('layers go with "at": "residual"')
            require(
                abs(self.strength) <= MAX_STRENGTH,
                "strength",
                f"{shown(self.strength)} is out of range; allowed: finite, from "
                f"-{MAX_STRENGTH:g} to {MAX_STRENGTH:g} standard deviations",
            )
            check_generated(self.when)
        elif self.layers is not None:
            require(
                len(self.layers) == len(set(self.layers)),
                "layers",
                f"{shown(self.layers)} names a layer twice; allowed: null or different integers",
            )
        return self


class SteerLogits(Control[SteerEntry]):
    """The entries of ``steer`` that act at the logits."""

    name, field = "steer_logits", "steer"
    entry, phase, order = SteerEntry, Phase.ADD, 2
    examples = ({"vector": "calm", "strength": 1.5}, {"vector": "calm", "strength": -1000.0})
    neutral = ({"vector": "calm", "strength": 0.0},)

    def takes(self, entry: SteerEntry) -> bool:
        """Say whether the entry acts at the logits."""
        return entry.at == "logits"

    def resolve(self, entry: SteerEntry, server: Server) -> SteerEntry:
        """Replace the vector's name by its content's SHA-256: a request keeps its content."""
        return entry.model_copy(update={"vector": server.scored_vector(entry.vector)})

    def vectors(self, entry: SteerEntry) -> Sequence[str]:
        """Return the vector."""
        return (entry.vector,)

    def table(self, engine: EngineFacts) -> Table[SteerEntry]:
        """Return the table of vectors and strengths."""
        return _SteerTable(engine)


class SteerResidual(Control[SteerEntry]):
    """The entries of ``steer`` that act in the residual stream, inside the model.

    After each of ``layers``, h += strength · v of that layer, on the tokens of ``when``. Nothing is
    rescaled: the convention of CAA, repeng and llama.cpp.
    """

    name, field = "steer_residual", "steer"
    entry, phase = SteerEntry, Phase.MODEL
    examples = ({"vector": "calm", "strength": 1.5, "at": "residual", "layers": [14]},)
    neutral = ({"vector": "calm", "strength": 0.0, "at": "residual"},)

    def takes(self, entry: SteerEntry) -> bool:
        """Say whether the entry acts in the residual stream."""
        return entry.at == "residual"

    def resolve(self, entry: SteerEntry, server: Server) -> SteerEntry:
        """Replace the vector's name by its content's SHA-256; refuse layers that it lacks."""
        if server.unsupported is not None:
            raise ControlError(
                "at",
                f"'residual' cannot be on this model: {server.unsupported}; allowed: 'logits'",
            )
        content = server.vector(entry.vector)
        carried = server.layers_of(content)
        require(
            bool(carried),
            "vector",
            f"the vector {shown(entry.vector)} is a direction of the unembedding: it steers "
            "'at': 'logits' only",
        )
        missing = [layer for layer in entry.layers or [] if layer not in carried]
        require(
            not missing,
            "layers",
            f"{shown(missing[:10])} is not in the vector; allowed: {shown(sorted(carried))}",
        )
        return entry.model_copy(update={"vector": content})

    def check(self, entries: Sequence[SteerEntry], others: Mapping[str, Sequence[Entry]]) -> None:
        """Refuse more entries than a request may have."""
        require(
            len(entries) <= MAX_RESIDUAL_ENTRIES,
            "steer",
            f"{len(entries)} entries at 'residual' are too many; allowed: {MAX_RESIDUAL_ENTRIES}",
        )

    def vectors(self, entry: SteerEntry) -> Sequence[str]:
        """Return the vector."""
        return (entry.vector,)

    def table(self, engine: EngineFacts) -> Table[SteerEntry]:
        """Refuse: the residual stream has a runtime of its own (``service.engine.residual``)."""
        raise NotImplementedError("steering inside the model has no table of logits")


class _SteerTable(ListedTable[SteerEntry]):
    reads_first = True

    def __init__(self, engine: EngineFacts) -> None:
        super().__init__(engine)
        self._directions = engine.directions
        self._held: list[list[int]] = [[] for _ in range(engine.slots)]

    def write(
        self, slot: int, entries: Sequence[SteerEntry], _patterns: Mapping[Pattern, CompiledPattern]
    ) -> bool:
        for row in self._held[slot]:
            self._directions.release(row)
        found = [(self._directions.acquire(entry.vector), entry) for entry in entries]
        held = [(row, entry) for row, entry in found if row is not None]
        self._held[slot] = [row for row, _ in held]
        self._entries.put(slot, [(row, entry.strength, entry.bounds) for row, entry in held])
        return len(held) == len(found)

    def apply(self, logits: torch.Tensor, rows: Rows) -> None:
        if self._kernels:
            self._run_kernel(logits, logits, rows)
            return
        steered = np.flatnonzero(self.used[rows.host_slots]) if rows.are_known else None
        at = upload(np.arange(len(logits)) if steered is None else steered, logits.device)
        index, strengths, active = self._entries.at(rows.slots[at], rows.positions[at])
        apply_steer(logits, at, self._directions.table, index, strengths * active)

    def begin(self, logits: torch.Tensor, out: torch.Tensor, rows: Rows) -> None:
        if self._kernels:
            # The kernel writes whole rows, and can read them from another tensor.
            self._run_kernel(logits, out, rows)
        else:
            super().begin(logits, out, rows)

    def _run_kernel(self, logits: torch.Tensor, out: torch.Tensor, rows: Rows) -> None:
        table = self._directions.table
        add_directions(logits, out, self._entries, table, rows.slots, rows.positions)

    def warm_up(self, vocab: int, dtype: torch.dtype) -> None:
        zeros = torch.zeros(2, dtype=torch.int64, device=self._entries.device)
        out = torch.zeros(2, vocab, device=zeros.device)
        add_directions(out, out, self._entries, out, zeros, zeros)
        for raw in {dtype, torch.float32}:
            logits = torch.zeros(2, vocab, dtype=raw, device=zeros.device)
            add_directions(logits, out, self._entries, out, zeros, zeros)

    def held(self) -> int:
        return sum(map(len, self._held))


def apply_steer(
    logits: torch.Tensor,
    rows: torch.Tensor,
    directions: torch.Tensor,
    index: torch.Tensor,
    strengths: torch.Tensor,
) -> torch.Tensor:
    """Add ``strengths[i, j] * directions[index[i, j]]`` to ``logits[rows[i]]``, in place.

    Args:
        logits: ``[all_rows, vocab]`` float32.
        rows: ``[rows]`` int64, each once.
        directions: ``[vectors, vocab]`` float32, standardised.
        index: ``[rows, entries]`` int64.
        strengths: ``[rows, entries]`` float32, standard deviations; 0 where not applied.

    """
    if logits.device.type == "cpu":
        return _apply_row_by_row(logits, rows, directions, index, strengths)
    for entry in range(index.shape[1]):
        scores = directions[index[:, entry]]
        logits.index_add_(0, rows, scores.mul_(strengths[:, entry : entry + 1]))
    return logits


def _apply_row_by_row(
    logits: torch.Tensor,
    rows: torch.Tensor,
    directions: torch.Tensor,
    index: torch.Tensor,
    strengths: torch.Tensor,
) -> torch.Tensor:
    """Steer on a CPU without gathering the directions first, in a third of the time."""
    for row, vectors, weights in zip(
        rows.tolist(), index.tolist(), strengths.tolist(), strict=True
    ):
        for vector, weight in zip(vectors, weights, strict=True):
            if weight:
                logits[row].add_(directions[vector], alpha=weight)
    return logits
