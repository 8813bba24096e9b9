"""``bias``: nats added to a token, or to every token that advances or completes a text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction

import torch
from pydantic import Field

from logit_processors.control import Control, Phase, Server
from logit_processors.controls.token_or_text import TokenOrText
from logit_processors.device_apply import edit_tokens
from logit_processors.pattern_sets import CompiledPattern
from logit_processors.patterns import Pattern
from logit_processors.slot_lists import ListedTable
from logit_processors.table import EngineFacts, Rows, Table

MAX_ADD = 100.0
"""Largest absolute bias, in nats: OpenAI's bound on ``logit_bias``."""


class BiasEntry(TokenOrText):
    """Raise or lower a token, or every token that advances or completes a text."""

    add: float = Field(ge=-MAX_ADD, le=MAX_ADD, description="Nats before temperature.")

    @property
    def can_fail(self) -> bool:
        """True if the entry needs a compiled pattern, which may be missing."""
        return self.text is not None


class TokenBias(Control[BiasEntry]):
    """The entries of ``bias`` that name a token."""

    name, field = "token_bias", "bias"
    entry, phase = BiasEntry, Phase.ADD
    examples = ({"token_id": 3, "add": 2.5}, {"token_id": 9, "add": -100.0})
    neutral = ({"token_id": 3, "add": 0.0},)

    def takes(self, entry: BiasEntry) -> bool:
        """Say whether the entry names a token."""
        return entry.token_id is not None

    def resolve(self, entry: BiasEntry, server: Server) -> BiasEntry:
        """Refuse a token that the vocabulary does not have."""
        server.check_token(entry.token_id, "token_id")
        return entry

    def table(self, engine: EngineFacts) -> Table[BiasEntry]:
        """Return the table of tokens and nats."""
        return _TokenBiasTable(engine)


class TextBias(Control[BiasEntry]):
    """The entries of ``bias`` that name a text."""

    name, field = "text_bias", "bias"
    entry, phase, order = BiasEntry, Phase.ADD, 1
    examples = ({"text": "ab", "add": 2.0}, {"text": "ABA", "add": 1.0, "ignore_case": True})
    neutral = ({"text": "ab", "add": 0.0},)

    def takes(self, entry: BiasEntry) -> bool:
        """Say whether the entry names a text."""
        return entry.text is not None

    def patterns(self, entry: BiasEntry) -> Sequence[Pattern]:
        """Return the pattern of the tokens that advance or complete the text."""
        return (entry.pattern(advancing=True),)

    def table(self, engine: EngineFacts) -> Table[BiasEntry]:
        """Return the table of patterns and nats."""
        return engine.texts.table(engine.slots, self, lambda entry: entry.add)


class _TokenBiasTable(ListedTable[BiasEntry]):
    def write(
        self, slot: int, entries: Sequence[BiasEntry], _patterns: Mapping[Pattern, CompiledPattern]
    ) -> bool:
        self._entries.put(slot, summed_token_bias(entries))
        return True

    def apply(self, logits: torch.Tensor, rows: Rows) -> None:
        if self._kernels:
            edit_tokens(logits, self._entries, rows.slots, rows.positions)
            return
        ids, adds, active = self._entries.at(rows.slots, rows.positions)
        apply_bias(logits, ids, adds * active)

    def warm_up(self, vocab: int, dtype: torch.dtype) -> None:
        zeros = torch.zeros(2, dtype=torch.int64, device=self._entries.device)
        edit_tokens(torch.zeros(2, vocab, device=zeros.device), self._entries, zeros, zeros)


def apply_bias(logits: torch.Tensor, token_ids: torch.Tensor, adds: torch.Tensor) -> torch.Tensor:
    """Add ``adds`` to the logits of ``token_ids``, in place.

    Args:
        logits: ``[rows, vocab]`` float32.
        token_ids: ``[rows, entries]`` int64; a token named twice gets the sum.
        adds: ``[rows, entries]`` float32, nats; 0 where an entry does not apply.

    """
    return logits.scatter_add_(1, token_ids, adds)


def summed_token_bias(
    entries: Iterable[BiasEntry],
) -> list[tuple[int, float, tuple[int, int]]]:
    """Return (token id, sum of adds in nats, window); windows of one token never overlap.

    Windows are cut where others begin or end. Sums are exact before they are rounded, so that an
    addition leaves nothing after its window.
    """
    changes: dict[int, dict[int, Fraction]] = {}
    for entry in entries:
        assert entry.token_id is not None
        of_token = changes.setdefault(entry.token_id, {})
        start, stop = entry.bounds
        for position, change in ((max(start, 0), entry.add), (stop, -entry.add)):
            of_token[position] = of_token.get(position, Fraction()) + Fraction(change)
    return [
        (token_id, add, window)
        for token_id, of_token in changes.items()
        for add, window in _running_sums(of_token)
    ]


def _running_sums(changes: dict[int, Fraction]) -> Iterator[tuple[float, tuple[int, int]]]:
    """Sum changes by position; leave out stretches whose sum is 0 or does not change."""
    total, start = Fraction(), 0
    for at in sorted(changes):
        if not changes[at]:
            continue
        if total:
            yield float(total), (start, at)
        total, start = total + changes[at], at
