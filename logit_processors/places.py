"""The layout of a step's rows: their requests on the host, their logits on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from logit_processors.upload import upload


@dataclass(frozen=True)
class Places:
    """Some rows of a step; a request's rows are contiguous.

    ``requests`` ``[rows]`` int64 are their requests' indices in the batch; ``rows`` ``[rows]``
    int64 are their own indices among the step's logits, which are on the device because of draft
    tokens.
    """

    requests: NDArray[np.int64]
    rows: torch.Tensor

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.requests)

    def first(self, count: int) -> Places:
        """Return the first ``count`` rows."""
        return Places(self.requests[:count], self.rows[:count])


@dataclass(frozen=True)
class Layout:
    """The layout of a step's rows: each request has one row, and one for each draft token.

    ``drafts`` ``[batch]`` are the numbers of draft tokens scheduled for each request, None if
    there are none; ``bounds`` ``[batch + 1]`` int32, on the device, are the first rows of
    requests.
    """

    device: torch.device
    drafts: NDArray[np.integer[Any]] | None = None
    bounds: torch.Tensor | None = None

    def count(self, requests: Sequence[int]) -> int:
        """Return the number of rows that :meth:`places` gives these requests."""
        return len(requests) + (0 if self.drafts is None else int(self.drafts[requests].sum()))

    def places(self, requests: Sequence[int]) -> Places:
        """Return the rows of some requests.

        If the device verifies fewer drafts than were scheduled, a request's last row is repeated;
        the request accepts no more tokens than it has rows.
        """
        owners = np.array(requests, np.int64)
        if self.drafts is None:
            return Places(owners, upload(owners, self.device))
        assert self.bounds is not None
        counts = self.drafts[owners].astype(np.int64) + 1
        begins = np.cumsum(counts) - counts
        offsets = np.arange(counts.sum()) - np.repeat(begins, counts)
        owners = np.repeat(owners, counts)
        on_device = upload(owners, self.device)
        rows = self.bounds[on_device] + upload(offsets, self.device)
        return Places(owners, torch.minimum(rows, self.bounds[on_device + 1] - 1))
