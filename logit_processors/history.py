"""The tokens before a row, on the host or on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from logit_processors.upload import upload

NO_TOKEN = -1


class History(Protocol):
    """The tokens before each of some rows."""

    def last(self, count: int, *, prompt: bool = False) -> torch.Tensor:
        """Return the last tokens before each row, newest first: ``[rows, count]`` int64.

        -1 stands before the first generated token or, with ``prompt``, before the prompt.
        """

    def select(self, at: torch.Tensor, on_host: NDArray[np.int64]) -> History:
        """Return the history of some rows, by their places on the device and on the host."""


@dataclass(frozen=True)
class HostHistory:
    """Rows whose tokens are on the host: ``outputs`` and ``prompts`` ``[rows]`` of token ids."""

    outputs: Sequence[Sequence[int]]
    prompts: Sequence[Sequence[int]]
    device: torch.device

    def last(self, count: int, *, prompt: bool = False) -> torch.Tensor:
        """Return the last tokens before each row; see :class:`History`."""
        listed = []
        for output, asked in zip(self.outputs, self.prompts, strict=True):
            found = list(output[-count:])
            missing = count - len(found)
            if prompt and missing:
                found = [*asked[-missing:], *found]
            found.reverse()
            listed.append(found + [NO_TOKEN] * (count - len(found)))
        return upload(listed, self.device) if listed else torch.empty(0, count, dtype=torch.int64)

    def select(self, at: torch.Tensor, on_host: NDArray[np.int64]) -> HostHistory:  # noqa: ARG002
        """Return the history of some rows; see :class:`History`."""
        rows = on_host.tolist()
        outputs, prompts = (
            [listed[row] for row in rows] for listed in (self.outputs, self.prompts)
        )
        return HostHistory(outputs, prompts, self.device)


@dataclass(frozen=True)
class DeviceHistory:
    """Rows whose tokens are only on the device.

    ``fed`` and ``offset`` are ``[step rows]``: the token at each row's input position, and the
    number of rows of the same request before it (draft tokens). Older tokens are in ``committed``
    ``[slots, max_len]`` int32. The rest are ``[rows]``: ``step_rows`` the rows' indices in the
    step, ``slots`` their requests' slots, ``newest`` the absolute position of the token just fed,
    ``positions`` the number of tokens generated before the one being chosen.
    """

    fed: torch.Tensor
    offset: torch.Tensor
    committed: torch.Tensor
    step_rows: torch.Tensor
    slots: torch.Tensor
    newest: torch.Tensor
    positions: torch.Tensor

    def last(self, count: int, *, prompt: bool = False) -> torch.Tensor:
        """Return the last tokens before each row; see :class:`History`."""
        back = torch.arange(count, device=self.fed.device)
        newest = self.newest.long().unsqueeze(1)
        step_rows = self.step_rows.unsqueeze(1)
        is_draft = back <= self.offset[self.step_rows].unsqueeze(1)
        drafts = self.fed[(step_rows - back).clamp(min=0)].long()
        places = (newest - back).clamp(min=0)
        older = self.committed[self.slots.unsqueeze(1), places].long()
        tokens = torch.where(is_draft, drafts, older)
        limit = newest + 1 if prompt else self.positions.long().unsqueeze(1)
        return tokens.masked_fill_(back >= limit, NO_TOKEN)

    def select(self, at: torch.Tensor, on_host: NDArray[np.int64]) -> DeviceHistory:  # noqa: ARG002
        """Return the history of some rows; see :class:`History`."""
        return replace(
            self,
            step_rows=self.step_rows[at],
            slots=self.slots[at],
            newest=self.newest[at],
            positions=self.positions[at],
        )
