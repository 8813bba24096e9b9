"""The residual stream of one engine: the requests that steer and capture it, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from logit_processors.residual import NOTHING, StreamRequest
from service.engine.residual.bank import Bank
from service.engine.residual.captures import Captures
from service.engine.residual.followed import Followed, Row
from service.engine.residual.step import StepLayout


class Buffers(Protocol):
    """The op's inputs: filled before a step, cleared after it."""

    def fill(self, rows: Sequence[Row], places: Sequence[int], layout: StepLayout) -> None: ...
    def apply(
        self, hidden: torch.Tensor, other: torch.Tensor | None, layer: torch.Tensor
    ) -> None: ...
    @property
    def captured(self) -> torch.Tensor: ...
    def is_idle(self, at: int) -> bool: ...
    def clear(self) -> None: ...
    def forget(self, request: Followed) -> None: ...


@dataclass(frozen=True)
class Support:
    """Support for steering a model. ``reason`` says why it cannot be steered.

    ``own`` are the numbers of the layers that this rank runs.
    """

    reason: str | None
    layers: int = 0
    own: tuple[int, ...] = ()


class ResidualStream:
    """Tracks an engine's requests and prepares each of its steps.

    ``unseen`` are the layers, by the address of their index, that have not called the op;
    ``broken_rows`` are the rows of the step whose steering or capture cannot be done.
    """

    def __init__(self, support: Support, bank: Bank, buffers: Buffers) -> None:
        self.bank = bank
        self.buffers = buffers
        self.support = support
        self.unseen: set[int] = set()
        self.broken_rows: frozenset[int] = frozenset()
        self._request_ids: Sequence[str] = ()
        self._captures = Captures()
        self._followed: dict[str, Followed] = {}

    def is_idle(self, at: int) -> bool:
        """Say whether the op after a layer has nothing to do in this step."""
        return not self.unseen and self.buffers.is_idle(at)

    def start(self, request_id: str, sampling_params: Any, prompt_len: int) -> None:
        """Track a request that begins, or begins again after preemption."""
        wanted = NOTHING if sampling_params is None else StreamRequest.of(sampling_params)
        known = self._followed.get(request_id)
        if known is not None and known.wanted == wanted and known.prompt_len == prompt_len:
            return
        self.end(request_id)
        if wanted != NOTHING:
            layers = list(self.support.own)
            followed = Followed.start(wanted, prompt_len, self.bank, layers)
            followed.broken |= self.support.reason is not None
            self._followed[request_id] = followed

    def end(self, request_id: str) -> None:
        """Forget a request that has ended."""
        followed = self._followed.pop(request_id, None)
        if followed is not None:
            self._captures.forget(followed)
            self.buffers.forget(followed)
            followed.release(self.bank)

    def begin_step(self, layout: StepLayout) -> None:
        """Prepare the step that is about to run."""
        self.broken_rows = frozenset()
        self._request_ids = layout.request_ids
        if not self._followed:
            return
        rows, broken = [], []
        for at, request_id in enumerate(layout.request_ids):
            followed = self._followed.get(request_id)
            if followed is None:
                continue
            if followed.broken:
                broken.append(at)
                continue
            start, stop = int(layout.starts[at]), int(layout.starts[at + 1])
            row = Row(followed, start, stop, int(layout.first[at]))
            if followed.steering or self._captures.wants(row):
                rows.append(row)
        self.broken_rows = frozenset(broken)
        if rows:
            self.buffers.fill(rows, self._captures.plan(rows), layout)

    def end_step(self) -> None:
        """Store the step's captures; until the next step nothing is steered."""
        if self.unseen and self._request_ids:
            self._give_up()
        self._captures.take_in(self.buffers.captured)
        self.buffers.clear()
        self._request_ids = ()

    def _give_up(self) -> None:
        """Mark every tracked request as broken: a layer has run without the op."""
        reason = "the decoder layers hand on something else than one residual stream"
        self.support = Support(reason)
        self.unseen.clear()
        for followed in self._followed.values():
            followed.broken = True
        self.broken_rows = frozenset(
            row for row, name in enumerate(self._request_ids) if name in self._followed
        )

    def fetch(self, tag: str) -> dict[str, Any] | None:
        """Return and drop a capture.

        Returns:
            ``{"layers": numbers, "data": [len(layers), hidden] float32 bytes}`` of this
            rank's layers, ``[len(layers), tokens, hidden]`` if each token was wanted, or None
            if nothing was captured under the tag.

        Raises:
            ValueError: the capture failed; the message says why.

        """
        if self.support.reason is not None:
            raise ValueError(f"the residual stream cannot be captured: {self.support.reason}")
        taken = self._captures.fetch(tag)
        if taken is None:
            return None
        capture, values = taken
        wanted = [
            (at, number)
            for at, number in enumerate(self.support.own)
            if capture.layers is None or number in capture.layers
        ]
        chosen = values[[at for at, _ in wanted]]
        return {"layers": [number for _, number in wanted], "data": chosen.cpu().numpy().tobytes()}
