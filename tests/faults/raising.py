"""A logits processor of somebody else's, with a bug that one request brings out."""

from __future__ import annotations

from typing import Any

import torch
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor

TRIGGER = "raise"


class Raising(LogitsProcessor):
    """Changes nothing, until a request asks it to raise."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self._broken = False

    def is_argmax_invariant(self) -> bool:
        """Say that greedy sampling needs it too."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Look at the requests that came."""
        for _, params, _, _ in batch_update.added if batch_update else ():
            self._broken = self._broken or TRIGGER in (params.extra_args or {})

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the logits, ``[rows, vocab]``, as they are."""
        if self._broken:
            raise RuntimeError("a bug in somebody else's logits processor")
        return logits
