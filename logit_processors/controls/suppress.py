"""``suppress``: probability exactly 0, regardless of bias and steering."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf

import torch

from logit_processors.checks import ControlError
from logit_processors.control import Control, Phase, Server
from logit_processors.controls.token_or_text import TokenOrText
from logit_processors.device_apply import edit_tokens
from logit_processors.pattern_sets import CompiledPattern
from logit_processors.patterns import Pattern
from logit_processors.slot_lists import ListedTable
from logit_processors.table import EngineFacts, Rows, Table


class SuppressEntry(TokenOrText):
    """Give probability 0 to a token, or to every token that would complete a text."""

    @property
    def forbidden_token(self) -> int | None:
        """The token that it suppresses."""
        return self.token_id


class TokenSuppress(Control[SuppressEntry]):
    """The entries of ``suppress`` that name a token."""

    name, field = "token_suppress", "suppress"
    entry, phase = SuppressEntry, Phase.MASK
    examples = ({"token_id": 3},)

    def takes(self, entry: SuppressEntry) -> bool:
        """Say whether the entry names a token."""
        return entry.token_id is not None

    def resolve(self, entry: SuppressEntry, server: Server) -> SuppressEntry:
        """Refuse a token that the vocabulary does not have."""
        server.check_token(entry.token_id, "token_id")
        return entry

    def admit(self, entries: Sequence[SuppressEntry], server: Server) -> None:
        """Refuse to suppress the whole vocabulary everywhere."""
        always = {entry.token_id for entry in entries if entry.is_always}
        if len(always) >= server.vocab_size:
            raise ControlError("suppress", "the whole vocabulary is suppressed")

    def table(self, engine: EngineFacts) -> Table[SuppressEntry]:
        """Return the table of tokens."""
        return _TokenSuppressTable(engine)


class TextSuppress(Control[SuppressEntry]):
    """The entries of ``suppress`` that name a text."""

    name, field = "text_suppress", "suppress"
    entry, phase, order = SuppressEntry, Phase.MASK, 1
    examples = ({"text": "ab"}, {"text": "A", "ignore_case": True})

    def takes(self, entry: SuppressEntry) -> bool:
        """Say whether the entry names a text."""
        return entry.text is not None

    def patterns(self, entry: SuppressEntry) -> Sequence[Pattern]:
        """Return the pattern of the tokens that complete the text."""
        return (entry.pattern(advancing=False),)

    def table(self, engine: EngineFacts) -> Table[SuppressEntry]:
        """Return the table of patterns."""
        return engine.texts.table(engine.slots, self, lambda _: -inf)


class _TokenSuppressTable(ListedTable[SuppressEntry]):
    def write(
        self,
        slot: int,
        entries: Sequence[SuppressEntry],
        _patterns: Mapping[Pattern, CompiledPattern],
    ) -> bool:
        named = [(entry.token_id, entry.bounds) for entry in entries]
        self._entries.put(slot, [(at, -inf, bounds) for at, bounds in named if at is not None])
        return True

    def apply(self, logits: torch.Tensor, rows: Rows) -> None:
        if self._kernels:
            edit_tokens(logits, self._entries, rows.slots, rows.positions)
            return
        ids, _, active = self._entries.at(rows.slots, rows.positions)
        apply_suppress(logits, ids, active)


def apply_suppress(
    logits: torch.Tensor, token_ids: torch.Tensor, active: torch.Tensor
) -> torch.Tensor:
    """Set the logits of the active ``token_ids`` to -inf, in place.

    Args:
        logits: ``[rows, vocab]`` float32.
        token_ids: ``[rows, entries]`` int64.
        active: ``[rows, entries]`` bool; an inactive entry touches nothing.

    """
    # The minimum with +inf leaves a logit as it is, so padding needs no dummy token.
    ceiling = torch.full_like(token_ids, inf, dtype=logits.dtype)
    ceiling.masked_fill_(active, -inf)
    return logits.scatter_reduce_(1, token_ids, ceiling, "amin")
