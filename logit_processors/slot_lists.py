"""Lists of running requests, by slot, as tables on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from logit_processors.table import E, EngineFacts, Table
from logit_processors.upload import upload

_LEAST_WIDTH = 4


class SlotLists:
    """A list per slot, in columns: ``[slots, width, ...]`` each, padded with zeros.

    The width is the length of the longest list, rounded up to a power of two; it adds to the cost
    of every row. The lists are written on the host. :meth:`flush` copies changed lists to the
    device, so that requests which begin together cost one copy. ``counts`` int32 ``[slots]`` are
    their lengths.
    """

    def __init__(
        self,
        slots: int,
        device: torch.device,
        columns: Mapping[str, tuple[type[Any], tuple[int, ...]]],
    ) -> None:
        self.used: NDArray[np.bool_] = np.zeros(slots, bool)
        self.device = device
        self.counts = torch.zeros(slots, dtype=torch.int32, device=device)
        self._lengths: NDArray[np.int32] = np.zeros(slots, np.int32)
        self._host: dict[str, NDArray[Any]] = {
            name: np.zeros((slots, _LEAST_WIDTH, *inner), kind)
            for name, (kind, inner) in columns.items()
        }
        self._tables = {
            name: torch.from_numpy(table).to(device, copy=True)
            for name, table in self._host.items()
        }
        self._changed: set[int] = set()

    @property
    def width(self) -> int:
        """Most entries of a list in the current tables."""
        return next(iter(self._tables.values())).shape[1]

    def column(self, name: str) -> torch.Tensor:
        """Return a column on the device: ``[slots, width, ...]``."""
        return self._tables[name]

    def write(self, slot: int, count: int, columns: Mapping[str, Sequence[Any]]) -> None:
        """Replace the list of a slot, ``[count, ...]`` of each column."""
        if not count and not self.used[slot]:
            return
        self.used[slot] = count > 0
        self._lengths[slot] = count
        width = max(_LEAST_WIDTH, 1 << (int(self._lengths.max()) - 1).bit_length())
        for name, values in columns.items():
            table = self._host[name] = _of_width(self._host[name], width)
            table[slot] = 0
            if count:
                table[slot, :count] = values
        self._changed.add(slot)

    def flush(self) -> None:
        """Copy changed lists to the device."""
        if not self._changed:
            return
        changed = sorted(self._changed)
        self._changed.clear()
        at = upload(changed, self.device)
        self.counts[at] = upload(self._lengths[changed], self.device, torch.int32)
        for name, host in self._host.items():
            table = self._tables[name]
            if table.shape[1] != host.shape[1]:
                self._tables[name] = upload(host, self.device, table.dtype).clone()
            else:
                table[at] = upload(host[changed], self.device, table.dtype)


def _of_width(table: NDArray[Any], width: int) -> NDArray[Any]:
    if width == table.shape[1]:
        return table
    resized = np.zeros((len(table), width, *table.shape[2:]), table.dtype)
    kept = min(width, table.shape[1])
    resized[:, :kept] = table[:, :kept]
    return resized


class EntryTable(SlotLists):
    """Lists of entries: an id, a value and a window each.

    ``ids`` int64 and ``values`` float32 are ``[slots, width]``, ``windows`` int32
    ``[slots, width, 2]``. A stop of 0 covers no position: the padding.
    """

    def __init__(self, slots: int, device: torch.device) -> None:
        columns = {"ids": (np.int64, ()), "values": (np.float32, ()), "windows": (np.int32, (2,))}
        super().__init__(slots, device, columns)

    @property
    def ids(self) -> torch.Tensor:
        """``[slots, width]`` int64."""
        return self.column("ids")

    @property
    def values(self) -> torch.Tensor:
        """``[slots, width]`` float32."""
        return self.column("values")

    @property
    def windows(self) -> torch.Tensor:
        """``[slots, width, 2]`` int32."""
        return self.column("windows")

    def put(self, slot: int, entries: Sequence[tuple[int, float, tuple[int, int]]]) -> None:
        """Replace the entries of a slot by (id, value, (start, stop)) tuples."""
        ids, values, windows = zip(*entries, strict=True) if entries else ((), (), ())
        columns = {"ids": ids, "values": values, "windows": windows}
        self.write(slot, len(entries), columns)

    def at(
        self, slots: torch.Tensor, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return ids, values and their activity, for rows at given positions.

        ``[rows]`` int64 and ``[rows]`` int -> three ``[rows, width]``: int64, float32, bool.
        """
        windows = self.windows[slots]
        at = positions.unsqueeze(1)
        active = (windows[..., 0] <= at) & (at < windows[..., 1])
        return self.ids[slots], self.values[slots], active


class ListedTable(Table[E]):
    """A control's table that keeps an id, a value and a window for each entry.

    Args:
        engine: where it runs.

    """

    def __init__(self, engine: EngineFacts) -> None:
        self._entries = EntryTable(engine.slots, engine.device)
        self._kernels = engine.kernels
        self.used = self._entries.used

    def flush(self) -> None:
        """Copy changed entries to the device."""
        self._entries.flush()
