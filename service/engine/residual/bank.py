"""The steering vectors that this worker holds, in one table on the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from logit_processors.holders import Holders

_BYTES = 256 << 20
_LEAST, _MOST = 64, 512


def bank_capacity(bytes_each: int) -> int:
    """Return how many vectors to make room for: 256 MiB of them, 64 at least, 512 at most."""
    return min(_MOST, max(_LEAST, _BYTES // max(1, bytes_each)))


class Bank:
    """Vectors by content hash, rows of ``table`` ``[capacity, own layers, hidden]``.

    Requests hold rows (:meth:`acquire`, :meth:`release`): a dropped vector keeps its row until
    the last of them lets go. Who puts vectors makes room for them: nothing is evicted here.
    """

    def __init__(
        self,
        capacity: int,
        layers: Sequence[int],
        hidden_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.table = torch.zeros(capacity, len(layers), hidden_size, dtype=dtype, device=device)
        self._layers = {number: at for at, number in enumerate(layers)}
        self._rows: dict[str, int] = {}
        self._carried: dict[int, frozenset[int]] = {}
        self._users: dict[int, int] = {}
        self._dropped: set[int] = set()
        self._free = list(range(capacity - 1, -1, -1))
        self._holders = Holders()

    def __contains__(self, content: str) -> bool:
        return content in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def put(
        self, content: str, vectors: torch.Tensor, layers: Sequence[int], holder: str = ""
    ) -> bool:
        """Keep a vector until every API process that put it has dropped it; False without room.

        Args:
            content: hash of its content; what is already here is not read again.
            vectors: ``[len(layers), hidden]`` float32.
            layers: the layers it carries, by number in the whole model.
            holder: names the API process.

        Raises:
            ValueError: another shape, or values that overflow the model's dtype.

        """
        expected = (len(layers), self.table.shape[2])
        if tuple(vectors.shape) != expected:
            raise ValueError(f"a vector of shape {tuple(vectors.shape)}; expected {expected}")
        values = vectors.to(self.table.dtype)
        if not torch.isfinite(values).all():
            raise ValueError(f"the vector has values that {self.table.dtype} cannot hold")
        if content in self._rows:
            self._holders.add(content, holder)
            return True
        if not self._free:
            return False
        row = self._free.pop()
        held = torch.zeros(self.table.shape[1:], dtype=self.table.dtype)
        for number, value in zip(layers, values, strict=True):
            if number in self._layers:
                held[self._layers[number]] = value
        self.table[row] = held.to(self.table.device)
        self._rows[content] = row
        self._carried[row] = frozenset(layers)
        self._holders.add(content, holder)
        return True

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

    def carried(self, row: int) -> frozenset[int]:
        """Return the layers that the vector in a row carries."""
        return self._carried[row]
