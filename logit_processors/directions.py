"""The token scores of the steering vectors that this worker holds."""

from __future__ import annotations

import torch

from logit_processors.holders import Holders

_FIRST_CAPACITY = 8


class Directions:
    """Standardised token scores by content hash, rows of one table on the device.

    Requests hold rows (:meth:`acquire`, :meth:`release`); a dropped vector keeps its row
    until the last of them lets go.
    """

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._users: dict[int, int] = {}
        self._dropped: set[int] = set()
        self._free: list[int] = []
        self._holders = Holders()
        self._table: torch.Tensor | None = None

    @property
    def table(self) -> torch.Tensor:
        """``[capacity, vocab]`` float32; only rows in use mean anything."""
        if self._table is None:
            raise LookupError("no steering vector is loaded")
        return self._table

    def __contains__(self, content: str) -> bool:
        return content in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def put(self, content: str, scores: torch.Tensor, holder: str = "") -> None:
        """Keep ``scores`` (``[vocab]`` float32, standardised) under a content hash.

        It stays until every API process that put it has dropped it; ``holder`` names this one.
        """
        self._holders.add(content, holder)
        if content in self._rows:
            return
        if not self._free:
            self._grow(scores)
        row = self._free.pop()
        self.table[row] = scores
        self._rows[content] = row

    def scores(self, content: str) -> torch.Tensor:
        """Return the ``[vocab]`` scores of a vector that is here."""
        return self.table[self._rows[content]]

    def drop(self, content: str, holder: str = "") -> None:
        """Forget a vector; its row is reused when no running request holds it."""
        if not self._holders.remove(content, holder):
            return
        row = self._rows.pop(content, None)
        if row is None:
            return
        if self._users.get(row):
            self._dropped.add(row)
        else:
            self._free.append(row)

    def acquire(self, content: str) -> int | None:
        """Return the row of a vector and hold it, or None if it is not here."""
        row = self._rows.get(content)
        if row is not None:
            self._users[row] = self._users.get(row, 0) + 1
        return row

    def release(self, row: int) -> None:
        """Let go of a row that :meth:`acquire` gave."""
        self._users[row] -= 1
        if not self._users[row]:
            del self._users[row]
            if row in self._dropped:
                self._dropped.remove(row)
                self._free.append(row)

    def clear(self) -> None:
        """Forget everything, as a new engine in the same process must."""
        self.__init__()  # type: ignore[misc]

    def _grow(self, like: torch.Tensor) -> None:
        old = 0 if self._table is None else len(self._table)
        capacity = max(_FIRST_CAPACITY, 2 * old)
        table = torch.zeros(capacity, len(like), dtype=torch.float32, device=like.device)
        if self._table is not None:
            table[:old] = self._table
        self._table = table
        self._free.extend(range(capacity - 1, old - 1, -1))


DIRECTIONS = Directions()
"""This worker process's directions: filled by the worker extension, read by the processor."""
