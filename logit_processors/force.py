"""Forced tokens: the text begins with them, whatever the sampler would choose."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from logit_processors.entries import fitted
from logit_processors.upload import upload


class ForceTable:
    """The forced tokens of each slot: ``ids`` int32 ``[slots, width]``, ``counts`` ``[slots]``.

    The width is that of the longest list, in powers of two.
    """

    def __init__(self, slots: int, device: torch.device) -> None:
        self.used: NDArray[np.bool_] = np.zeros(slots, bool)
        self._lengths = np.zeros(slots, np.int64)
        self.counts = torch.zeros(slots, dtype=torch.int32, device=device)
        self.ids = torch.zeros(slots, 4, dtype=torch.int32, device=device)

    def write(self, slot: int, token_ids: Sequence[int]) -> None:
        """Replace the tokens of a slot."""
        count = len(token_ids)
        if not count and not self.used[slot]:
            return
        self.used[slot] = count > 0
        self.counts[slot] = count
        self._lengths[slot] = count
        self.ids = fitted(self.ids, self._lengths)
        if count:
            self.ids[slot, :count] = upload(token_ids, self.ids.device, torch.int32)

    def at(self, slots: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the token forced now and whether there is one, for rows at given positions.

        ``[rows]`` int64 and ``[rows]`` int -> ``[rows]`` int64, ``[rows]`` bool.
        """
        active = (positions >= 0) & (positions < self.counts[slots])
        return self.ids[slots, positions.long() * active].long(), active


def apply_force(
    logits: torch.Tensor, token_ids: torch.Tensor, active: torch.Tensor
) -> torch.Tensor:
    """Set all logits but the forced token's to -inf in the active rows, in place.

    Args:
        logits: ``[rows, vocab]`` float32.
        token_ids: ``[rows]`` int64.
        active: ``[rows]`` bool.

    """
    forced = token_ids.unsqueeze(1)
    kept = logits.gather(1, forced)
    return logits.masked_fill_(active.unsqueeze(1), float("-inf")).scatter_(1, forced, kept)
