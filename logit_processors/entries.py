"""What the slots' requests list, as tables on the device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from logit_processors.controls import Window
from logit_processors.upload import upload

_NO_END = np.iinfo(np.int32).max
_LEAST_WIDTH = 4


class EntryTable:
    """Entries of one kind per slot: an id, a value and a window each, padded with nothing.

    ``ids`` int64 and ``values`` float32 are ``[slots, width]``, ``windows`` int32
    ``[slots, width, 2]`` and ``counts`` int32 ``[slots]``. The width is that of the longest
    list, in powers of two: every row of a step pays for it.
    """

    def __init__(self, slots: int, device: torch.device) -> None:
        self.used: NDArray[np.bool_] = np.zeros(slots, bool)
        self._lengths = np.zeros(slots, np.int64)
        self.counts = torch.zeros(slots, dtype=torch.int32, device=device)
        self.ids = torch.zeros(slots, _LEAST_WIDTH, dtype=torch.int64, device=device)
        self.values = torch.zeros(slots, _LEAST_WIDTH, dtype=torch.float32, device=device)
        # A stop of 0 covers no position: the padding.
        self.windows = torch.zeros(slots, _LEAST_WIDTH, 2, dtype=torch.int32, device=device)

    def write(self, slot: int, entries: Sequence[tuple[int, float, Window]]) -> None:
        """Replace the entries of a slot by (id, value, window) tuples."""
        if not entries and not self.used[slot]:
            return
        count = len(entries)
        self.used[slot] = count > 0
        self.counts[slot] = count
        self._lengths[slot] = count
        for name in ("ids", "values", "windows"):
            setattr(self, name, fitted(getattr(self, name), self._lengths))
        self.windows[slot].zero_()
        if not entries:
            return
        ids, values, windows = zip(*entries, strict=True)
        bounds = [(w.start, _NO_END if w.stop is None else w.stop) for w in windows]
        for table, column in ((self.ids, ids), (self.values, values), (self.windows, bounds)):
            table[slot, :count] = upload(column, table.device, table.dtype)

    def at(
        self, slots: torch.Tensor, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return ids, values and whether they apply now, for rows at given positions.

        ``[rows]`` int64 and ``[rows]`` int -> three ``[rows, width]``: int64, float32, bool.
        """
        windows = self.windows[slots]
        at = positions.unsqueeze(1)
        active = (windows[..., 0] <= at) & (at < windows[..., 1])
        return self.ids[slots], self.values[slots], active


def fitted(table: torch.Tensor, lengths: NDArray[np.int64]) -> torch.Tensor:
    """Return a table of lists, ``[slots, width, ...]``, as wide as the longest list needs.

    That is the next power of two; ``lengths`` are those of the lists, ``[slots]``.
    """
    width = max(_LEAST_WIDTH, 1 << (int(lengths.max()) - 1).bit_length())
    if width == table.shape[1]:
        return table
    resized = table.new_zeros((len(table), width, *table.shape[2:]))
    kept = min(width, table.shape[1])
    resized[:, :kept] = table[:, :kept]
    return resized
