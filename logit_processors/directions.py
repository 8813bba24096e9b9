"""The token scores of the steering vectors that this worker holds."""

from __future__ import annotations

import torch

from logit_processors.leased_rows import LeasedRows

_FIRST_CAPACITY = 8


class Directions(LeasedRows):
    """Standardised token scores by content hash, rows of one table that grows."""

    def __init__(self) -> None:
        super().__init__()
        self._table: torch.Tensor | None = None

    @property
    def table(self) -> torch.Tensor:
        """``[capacity, vocab]`` float32; only rows in use mean anything."""
        if self._table is None:
            raise LookupError("no steering vector is loaded")
        return self._table

    def put(self, content: str, scores: torch.Tensor, holder: str = "") -> None:
        """Keep ``scores`` (``[vocab]`` float32, standardised) under a content hash.

        It stays until every API process that put it has dropped it; ``holder`` is this one's id.
        """
        if self.share(content, holder):
            return
        if not self._free:
            self._grow(scores)
        self.table[self._place(content, holder)] = scores

    def share(self, content: str, holder: str) -> bool:
        """Keep a vector for one more API process; return False if it is not present."""
        if content in self:
            self._holders.add(content, holder)
        return content in self

    def scores(self, content: str) -> torch.Tensor:
        """Return the ``[vocab]`` scores of a present vector."""
        return self.table[self._rows[content]]

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
