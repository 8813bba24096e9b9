"""Compiled patterns in the form of the device's tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from logit_processors.pattern_sets import CompiledPattern
from logit_processors.patterns import Automaton
from logit_processors.upload import upload

_CASE = ord("a") - ord("A")


def masks_of(patterns: Sequence[CompiledPattern], words: int, device: torch.device) -> torch.Tensor:
    """Return the masks of all states, one pattern after another: int32 ``[states, words]``.

    Only the listed ids are copied to the device, which computes the masks.
    """
    listed = [np.frombuffer(data, np.int32) for each in patterns for data in each.listed]
    masked = [np.frombuffer(data, np.int32) for each in patterns for data in each.masked]
    masks = torch.zeros(len(listed) + len(masked), words, dtype=torch.int32, device=device)
    if listed:
        ids = np.concatenate(listed).astype(np.int64)
        starts = np.repeat(np.arange(len(listed)) * words, [len(each) for each in listed])
        bits = np.left_shift(1, ids % 32).astype(np.uint32).view(np.int32)
        at = upload(starts + ids // 32, device)
        # Every bit is added once, so that the sum is their union.
        masks.view(-1).scatter_add_(0, at, upload(bits, device, torch.int32))
    if masked:
        masks[len(listed) :] = upload(np.stack(masked), device, torch.int32)
    return masks[upload(_sets_of(patterns, len(listed)), device)]


def _sets_of(patterns: Sequence[CompiledPattern], listed: int) -> NDArray[np.int64]:
    """Return the index of each state's set, listed sets first: ``[states]``."""
    numbers = []
    first_listed, first_masked = 0, listed
    for each in patterns:
        own = np.frombuffer(each.of_state, np.uint8).astype(np.int64)
        is_listed = own < len(each.listed)
        shift = np.where(is_listed, first_listed, first_masked - len(each.listed))
        numbers.append(own + shift)
        first_listed += len(each.listed)
        first_masked += len(each.masked)
    return np.concatenate(numbers)


def transitions_of(automaton: Automaton) -> NDArray[np.int16]:
    """Return the next state by state and byte, ``[states, 256]``.

    A state has its border's transitions, except for the pattern's next byte.
    """
    pattern, borders = automaton.pattern, automaton.borders
    table = np.zeros((len(pattern), 256), np.int16)
    for state, byte in enumerate(pattern):
        row = table[state]
        row[:] = table[borders[state]]
        row[byte] = following = state + 1 if state + 1 < len(pattern) else borders[-1]
        if automaton.ignore_case and ord("a") <= byte <= ord("z"):
            row[byte - _CASE] = following
    return table
