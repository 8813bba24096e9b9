"""The steering vectors that this worker holds, in one table on the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from logit_processors.leased_rows import LeasedRows

_BYTES = 256 << 20
_LEAST, _MOST = 64, 512


def bank_capacity(bytes_each: int) -> int:
    """Return the bank's capacity in vectors: 256 MiB of them, 64 at least, 512 at most."""
    return min(_MOST, max(_LEAST, _BYTES // max(1, bytes_each)))


class Bank(LeasedRows):
    """Vectors by content hash, rows of ``table`` ``[capacity, own layers, hidden]``.

    The API process that puts a vector must make room for it: the bank evicts nothing.
    """

    def __init__(
        self,
        capacity: int,
        layers: Sequence[int],
        hidden_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__(capacity)
        self.table = torch.zeros(capacity, len(layers), hidden_size, dtype=dtype, device=device)
        self._layers = {number: at for at, number in enumerate(layers)}
        self._carried: dict[int, frozenset[int]] = {}

    def put(
        self, content: str, vectors: torch.Tensor, layers: Sequence[int], holder: str = ""
    ) -> bool:
        """Keep a vector until every API process that put it has dropped it; False without room.

        Args:
            content: hash of its content; a content that is present is not read again.
            vectors: ``[len(layers), hidden]`` float32.
            layers: the vector's layers, by number in the whole model.
            holder: id of the API process.

        Raises:
            ValueError: another shape, or values that overflow the model's dtype.

        """
        expected = (len(layers), self.table.shape[2])
        if tuple(vectors.shape) != expected:
            raise ValueError(f"a vector of shape {tuple(vectors.shape)}; expected {expected}")
        values = vectors.to(self.table.dtype)
        if not torch.isfinite(values).all():
            raise ValueError(f"the vector has values that {self.table.dtype} cannot hold")
        if content in self:
            self._holders.add(content, holder)
            return True
        if not self._free:
            return False
        held = torch.zeros(self.table.shape[1:], dtype=self.table.dtype)
        for number, value in zip(layers, values, strict=True):
            if number in self._layers:
                held[self._layers[number]] = value
        row = self._place(content, holder)
        self.table[row] = held.to(self.table.device)
        self._carried[row] = frozenset(layers)
        return True

    def carried(self, row: int) -> frozenset[int]:
        """Return the layers of the vector in a row."""
        return self._carried[row]
