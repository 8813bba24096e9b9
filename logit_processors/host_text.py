"""Text patterns on rows whose generated tokens are on the host (vLLM's V1 runner)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import numpy as np
import torch

from logit_processors.control import Control, WindowedEntry
from logit_processors.history import HostHistory
from logit_processors.pattern_sets import CompiledPattern
from logit_processors.patterns import Automaton, Pattern
from logit_processors.table import Rows, Table
from logit_processors.texts import ValueOf
from logit_processors.token_sets import TokenSets
from logit_processors.vocabulary import Vocabulary

_REMEMBERED = 16


@dataclass(frozen=True)
class Matched:
    """An entry, its compiled pattern, and its addition in nats."""

    entry: WindowedEntry
    compiled: CompiledPattern
    value: float


@dataclass
class TextStates:
    """The automata of one request and their states after its generated tokens.

    The states are only a cache: they depend on the tokens alone, so that a preempted and resumed
    request, or one whose last tokens were removed, gets the same states.
    """

    matched: Sequence[Matched]
    _seen: int = 0
    _newest: list[int] = field(default_factory=list)
    _states: dict[Automaton, int] = field(default_factory=dict)

    def advance(self, output: Sequence[int], vocabulary: Vocabulary) -> None:
        """Update the states for the tokens generated so far."""
        size = len(output)
        automata = {each.compiled.pattern.automaton for each in self.matched}
        # Compare the last tokens seen: draft tokens may have been replaced.
        unchanged = list(output[max(0, self._seen - _REMEMBERED) : self._seen]) == self._newest
        if self._states and unchanged:
            new = b"".join(vocabulary.text_bytes(token) for token in output[self._seen :])
            self._states = {a: a.step(self._states[a], new) for a in automata}
        else:
            self._states = {a: a.state_after(output, vocabulary) for a in automata}
        self._seen = size
        self._newest = list(output[-_REMEMBERED:])

    def active(self) -> Iterator[tuple[CompiledPattern, int, float]]:
        """Yield (pattern, state, addition in nats) of the entries that apply now."""
        for each in self.matched:
            if each.entry.covers(self._seen):
                yield each.compiled, self._states[each.compiled.pattern.automaton], each.value


class HostTexts:
    """Matches text patterns on the host; only their token ids are copied to the device."""

    def __init__(self, vocabulary: Vocabulary | None, device: torch.device) -> None:
        self.vocabulary = vocabulary
        self.sets = TokenSets(device)

    def table(self, slots: int, control: Control[Any], value_of: ValueOf) -> Table[Any]:
        """Return a table of entries with a text pattern each."""
        return _HostTextTable(self, slots, control, value_of)


class _HostTextTable(Table[WindowedEntry]):
    def __init__(
        self, texts: HostTexts, slots: int, control: Control[Any], value_of: ValueOf
    ) -> None:
        self._texts = texts
        self._control = control
        self._value_of = value_of
        self._states: list[TextStates | None] = [None] * slots
        self.used = np.zeros(slots, bool)

    def write(
        self,
        slot: int,
        entries: Sequence[WindowedEntry],
        patterns: Mapping[Pattern, CompiledPattern],
    ) -> bool:
        matched = [
            Matched(entry, patterns[pattern], self._value_of(entry))
            for entry in entries
            for pattern in self._control.patterns(entry)
        ]
        self._states[slot] = TextStates(matched) if matched else None
        self.used[slot] = bool(matched)
        return True

    def apply(self, logits: torch.Tensor, rows: Rows) -> None:
        vocabulary, history = self._texts.vocabulary, rows.history
        assert vocabulary is not None, "text patterns need a vocabulary"
        assert isinstance(history, HostHistory)
        for row in np.flatnonzero(self.used[rows.host_slots]).tolist():
            states = self._states[rows.host_slots[row]]
            assert states is not None
            states.advance(history.outputs[row], vocabulary)
            for compiled, state, value in states.active():
                apply_to_set(logits, row, self._texts.sets.get(compiled, state), value)


def apply_to_set(
    logits: torch.Tensor, row: int, token_ids: torch.Tensor, value: float
) -> torch.Tensor:
    """Add to the logits of some tokens in one row, or set them to -inf, in place.

    Args:
        logits: ``[rows, vocab]`` float32.
        row: index of the row.
        token_ids: ``[entries]`` int64, without duplicates.
        value: nats; -inf suppresses.

    """
    if value == -inf:
        # Set, not added: +inf plus -inf is NaN.
        logits[row].index_fill_(0, token_ids, value)
    else:
        adds = logits.new_full((1,), value).expand(len(token_ids))
        logits[row].index_add_(0, token_ids, adds)
    return logits
