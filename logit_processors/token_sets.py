"""Token sets of text patterns on the device, for rows whose states are known on the host."""

from __future__ import annotations

from collections import OrderedDict

import torch

from logit_processors.pattern_sets import CompiledPattern
from logit_processors.patterns import Pattern
from logit_processors.upload import upload


class TokenSets:
    """The token sets of recently used states, at most ``capacity_bytes`` of them."""

    def __init__(self, device: torch.device, capacity_bytes: int = 256 << 20) -> None:
        self._device = device
        self._free = capacity_bytes
        self._sets: OrderedDict[tuple[Pattern, int], tuple[torch.Tensor, int]] = OrderedDict()

    def get(self, compiled: CompiledPattern, state: int) -> torch.Tensor:
        """Return the ids of the tokens in the set of a pattern's state, ``[tokens]`` int64."""
        key = compiled.pattern, state
        if (kept := self._sets.get(key)) is not None:
            self._sets.move_to_end(key)
            return kept[0]
        ids = compiled.ids(state)
        value, size = upload(ids, self._device), ids.nbytes + 256
        self._sets[key] = value, size
        self._free -= size
        while self._free < 0 and len(self._sets) > 1:
            self._free += self._sets.popitem(last=False)[1][1]
        return value
