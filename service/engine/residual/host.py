"""The op's work on a CPU, where the host knows the steered tokens and their entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from logit_processors.residual import MAX_CAPTURED
from service.engine.residual.bank import Bank
from service.engine.residual.followed import Entry, Followed, Row
from service.engine.residual.step import StepLayout

_GATHERED = 256
"""Most tokens of a step for which one addition per token is precomputed."""
_LONG = 8
"""Mean length of spans, in tokens, from which they are added to one by one, as in prompts."""

_Span = tuple[int, int, int]
"""First steered token, the one after the last, and their group."""
_Work = tuple[list[_Span], list[tuple[Entry, ...]]]
"""Steered spans in their order, and the entries of each group."""


@dataclass(frozen=True)
class _BySpan:
    """Adds ``[groups, hidden]`` to spans of one group each."""

    spans: Sequence[_Span]

    def add(self, hidden: torch.Tensor, delta: torch.Tensor) -> None:
        """Add in place to ``[tokens, hidden]``."""
        for start, stop, group in self.spans:
            hidden[start:stop].add_(delta[group])


@dataclass(frozen=True)
class _ByToken:
    """Adds to the tokens ``rows``, ``[steered]`` int64, which are a ``block`` if contiguous.

    Each token gets the addition of its group, ``groups`` ``[steered]`` int64; without groups the
    additions broadcast to ``[steered, hidden]``.
    """

    rows: torch.Tensor
    block: slice | None
    groups: torch.Tensor | None

    def add(self, hidden: torch.Tensor, delta: torch.Tensor) -> None:
        """Add in place to ``[tokens, hidden]``."""
        if self.groups is not None:
            delta = delta[self.groups]
        if self.block is not None:
            hidden[self.block].add_(delta)
        else:
            hidden[self.rows] = (hidden[self.rows] + delta).to(hidden.dtype)


@dataclass(frozen=True)
class _Plan:
    """A step's additions by layer, float32; ``active`` is False for a layer of zeros only."""

    deltas: Sequence[torch.Tensor]
    active: Sequence[bool]
    where: _BySpan | _ByToken


class HostBuffers:
    """The op's work in the current step.

    ``captured`` ``[layers, places, hidden]`` float32 holds the copies of the last step.
    """

    def __init__(self, bank: Bank) -> None:
        _, layers, hidden_size = bank.table.shape
        self._bank = bank
        self._plan: _Plan | None = None
        self._copied: torch.Tensor | None = None
        self.captured = torch.zeros(layers, MAX_CAPTURED, hidden_size)
        self._last: tuple[_Work, _Plan] | None = None

    def fill(self, rows: Sequence[Row], places: Sequence[int], _layout: StepLayout) -> None:
        """Prepare a step.

        Args:
            rows: the tokens of the tracked requests.
            places: the step's tokens to capture, in the order of their places.

        """
        kinds: dict[tuple[Entry, ...], int] = {}
        spans = [
            (start, stop, kinds.setdefault(entries, len(kinds)))
            for row in rows
            for start, stop, entries in _pieces(row)
        ]
        self._plan = self._planned((spans, list(kinds))) if spans else None
        self._copied = torch.tensor(places) if places else None

    def apply(self, hidden: torch.Tensor, other: torch.Tensor | None, layer: torch.Tensor) -> None:
        """Do the op's work after a layer.

        Args:
            hidden: ``[tokens, hidden]``, added to in place.
            other: the rest of the stream, ``[tokens, hidden]``, if there is one.
            layer: the layer's index among this rank's layers, one int32.

        """
        plan, copied = self._plan, self._copied
        if plan is None and copied is None:
            return
        at = int(layer)
        if plan is not None and plan.active[at]:
            plan.where.add(hidden, plan.deltas[at])
        if copied is not None:
            stream = hidden[copied].float()
            self.captured[at, : len(copied)] = stream if other is None else stream + other[copied]

    def is_idle(self, at: int) -> bool:
        """Say whether the op has nothing to do after this rank's layer ``at`` in this step."""
        return self._copied is None and (self._plan is None or not self._plan.active[at])

    def clear(self) -> None:
        """Do nothing until the next step is filled."""
        self._plan = self._copied = None

    def forget(self, request: Followed) -> None:
        """Do nothing: no state of a request is kept between steps."""

    def _planned(self, work: _Work) -> _Plan:
        """Return the plan of a step; steps of the same batch share one."""
        if self._last is None or self._last[0] != work:
            self._last = (work, self._made(*work))
        return self._last[1]

    def _made(self, spans: list[_Span], kinds: list[tuple[Entry, ...]]) -> _Plan:
        strengths = np.array([entry.strengths for entries in kinds for entry in entries])
        active = [bool(column.any()) for column in strengths.T]
        deltas = torch.stack([self._sum(entries) for entries in kinds], dim=1)
        if sum(stop - start for start, stop, _ in spans) >= _LONG * len(spans):
            return _Plan(deltas.unbind(), active, _BySpan(spans))
        tokens = [token for start, stop, _ in spans for token in range(start, stop)]
        groups = [group for start, stop, group in spans for _ in range(start, stop)]
        index: torch.Tensor | None = torch.tensor(groups)
        if len(kinds) == 1 or groups == list(range(len(tokens))):
            index = None
        elif len(tokens) <= _GATHERED:
            deltas, index = deltas[:, index], None
        has_gap = tokens[-1] - tokens[0] + 1 != len(tokens)
        block = None if has_gap else slice(tokens[0], tokens[-1] + 1)
        return _Plan(deltas.unbind(), active, _ByToken(torch.tensor(tokens), block, index))

    def _sum(self, entries: Sequence[Entry]) -> torch.Tensor:
        total = torch.zeros(self._bank.table.shape[1:])
        for entry in entries:
            total.addcmul_(
                self._bank.table[entry.row].float(),
                torch.from_numpy(entry.strengths).unsqueeze(1),
            )
        return total


def _pieces(row: Row) -> list[tuple[int, int, tuple[Entry, ...]]]:
    """Split a row's tokens where a window starts or ends: (start, stop, entries) each."""
    entries = row.request.steering
    if not entries:
        return []
    begin, end = row.position, row.position + row.stop - row.start
    bounds = {b for e in entries for b in (e.start, e.stop) if begin < b < end}
    pieces = []
    for low, high in pairwise(sorted({begin, end, *bounds})):
        active = tuple(entry for entry in entries if entry.covers(low))
        if active:
            pieces.append((row.start + low - begin, row.start + high - begin, active))
    return pieces
