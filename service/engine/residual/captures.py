"""Copies of the residual stream at prompts' last tokens, until they are fetched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from logit_processors.residual import MAX_CAPTURED, Capture
from service.engine.residual.followed import Followed, Row

_KEPT = 256
"""Most tokens of finished captures: one is never fetched if its client has disconnected."""


@dataclass
class _Copy:
    """The copied states of one prompt, float32.

    ``states`` are ``[own layers, tokens, hidden]`` if each token is wanted. Otherwise they are the
    sum of the states so far, in the end their mean, ``[own layers, hidden]``.
    """

    capture: Capture
    states: torch.Tensor
    failure: str | None = None

    @property
    def tokens(self) -> int:
        """Number of tokens whose states it holds; a mean or a failure counts as one."""
        return self.states.shape[1] if self.states.ndim > 2 else 1


class Captures:
    """Captures by tag: they grow while their requests run; then the newest are kept."""

    def __init__(self) -> None:
        self._growing: dict[Followed, _Copy] = {}
        self._kept: dict[str, _Copy] = {}
        self._step: list[tuple[Followed, slice]] = []

    def plan(self, rows: Sequence[Row]) -> list[int]:
        """Return a step's tokens to copy, in the order of their places.

        A step has 64 places. The capture of a request that finds too few left fails, and the
        fetch raises the failure. One API process runs captures of 64 tokens at most, but several
        may capture in the same step.
        """
        places: list[int] = []
        self._step = []
        for row in rows:
            capture = row.request.wanted.capture
            if capture is None or not self.wants(row):
                continue
            tokens = _new_tokens(row, capture)
            if len(places) + len(tokens) > MAX_CAPTURED:
                self._fail(row.request, capture)
                continue
            self._step.append((row.request, slice(len(places), len(places) + len(tokens))))
            row.request.captured.update(tokens)
            places.extend(row.start + token - row.first for token in tokens)
        return places

    @staticmethod
    def wants(row: Row) -> bool:
        """Say whether a step computes tokens that a request's capture still lacks."""
        capture = row.request.wanted.capture
        return capture is not None and bool(_new_tokens(row, capture))

    def take_in(self, captured: torch.Tensor) -> None:
        """Add a step's copies, ``[own layers, places, hidden]`` float32."""
        for request, places in self._step:
            capture = request.wanted.capture
            assert capture is not None
            states = captured[:, places].clone() if capture.each else captured[:, places].sum(1)
            if request in self._growing:
                before = self._growing.pop(request).states
                # A prompt's tokens come in their order, preempted or not.
                states = torch.cat((before, states), 1) if capture.each else before + states
            if len(request.captured) < _count(request, capture):
                self._growing[request] = _Copy(capture, states)
            else:
                done = states if capture.each else states / len(request.captured)
                self._keep(_Copy(capture, done))
        self._step = []

    def forget(self, request: Followed) -> None:
        """Drop the unfinished capture of a request that has ended."""
        copy = self._growing.pop(request, None)
        if copy is not None:
            failure = "the request ended before all of its tokens had passed the layers"
            self._keep(_Copy(copy.capture, torch.empty(0), failure=failure))

    def fetch(self, tag: str) -> tuple[Capture, torch.Tensor] | None:
        """Return and drop the capture under a tag; None if there is none.

        Returns:
            The request's capture, and its states as in :class:`_Copy`.

        Raises:
            ValueError: the capture failed; the message says why.

        """
        copy = self._kept.pop(tag, None)
        if copy is None:
            return None
        if copy.failure is not None:
            raise ValueError(f"capture {tag}: {copy.failure}")
        return copy.capture, copy.states

    def _keep(self, copy: _Copy) -> None:
        self._kept.pop(copy.capture.tag, None)
        self._kept[copy.capture.tag] = copy
        while sum(kept.tokens for kept in self._kept.values()) > _KEPT:
            del self._kept[next(iter(self._kept))]

    def _fail(self, request: Followed, capture: Capture) -> None:
        self._growing.pop(request, None)
        # Mark all tokens as captured, so that no more are copied.
        request.captured.update(range(request.prompt_len))
        failure = f"more than {MAX_CAPTURED} tokens were to be captured in one step"
        self._keep(_Copy(capture, torch.empty(0), failure=failure))


def _count(request: Followed, capture: Capture) -> int:
    return min(capture.last, request.prompt_len)


def _new_tokens(row: Row, capture: Capture) -> list[int]:
    """Return the prompt positions of the tokens to copy in this step."""
    end = row.request.prompt_len
    begin = end - _count(row.request, capture)
    span = range(max(begin, row.first), min(end, row.first + row.stop - row.start))
    return [token for token in span if token not in row.request.captured]
