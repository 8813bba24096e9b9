"""``force``: the text begins with given tokens, regardless of the sampler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from logit_processors.checks import ControlError, require, shown
from logit_processors.control import Control, Entry, Phase, Server
from logit_processors.device_apply import force_tokens
from logit_processors.pattern_sets import CompiledPattern
from logit_processors.patterns import Pattern
from logit_processors.slot_lists import SlotLists
from logit_processors.table import EngineFacts, Rows, Table

MAX_FORCED = 16_384
"""Tokens that one request may force."""


class Force(Entry):
    """The beginning of the generated text: tokens, or a text that is tokenized."""

    token_ids: list[Annotated[int, Field(ge=0, lt=2**31)]] | None = Field(
        None, min_length=1, max_length=MAX_FORCED, description="Tokens of the vocabulary."
    )
    text: str | None = Field(
        None,
        min_length=1,
        max_length=4 * MAX_FORCED,
        description="A text, in the model's tokenization, without special tokens around it.",
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.token_ids is None) == (self.text is None):
            raise ValueError("exactly one of token_ids and text is required")
        return self

    @property
    def count(self) -> int:
        """Return the number of forced tokens."""
        return len(self.token_ids or ())


class ForceTokens(Control[Force]):
    """The field ``force``."""

    name = "force"
    entry, phase, single = Force, Phase.FORCE, True
    examples = ({"token_ids": [3, 4, 5]},)
    description = (
        "The first generated tokens. The reported distributions do not change. A "
        "forced token that something else forbids ends the request with an error."
    )

    def resolve(self, entry: Force, server: Server) -> Force:
        """Return the entry as tokens of the vocabulary."""
        if entry.text is not None:
            token_ids = server.encode(entry.text)
            require(bool(token_ids), "text", f"{shown(entry.text)} has no tokens")
            require(
                len(token_ids) <= MAX_FORCED,
                "",
                f"{len(token_ids)} tokens are too many; allowed: {MAX_FORCED}",
            )
            return Force(token_ids=token_ids)
        for at, token_id in enumerate(entry.token_ids or ()):
            server.check_token(token_id, f"token_ids[{at}]")
        return entry

    def texts(self, entry: Force) -> Sequence[str]:
        """Return the text, if there is one."""
        return () if entry.text is None else (entry.text,)

    def check(self, entries: Sequence[Force], others: Mapping[str, Sequence[Entry]]) -> None:
        """Refuse a token that the request suppresses where it is forced."""
        forbidding: dict[int, list[Entry]] = {}
        for listed in others.values():
            for other in listed:
                if other.forbidden_token is not None:
                    forbidding.setdefault(other.forbidden_token, []).append(other)
        for force in entries:
            for at, token_id in enumerate(force.token_ids or ()):
                if any(other.covers(at) for other in forbidding.get(token_id, ())):
                    raise ControlError(
                        "force",
                        f"token {token_id} is suppressed at position {at}, where it is forced",
                    )

    def table(self, engine: EngineFacts) -> Table[Force]:
        """Return the table of tokens by position."""
        return ForceTable(engine)


class ForceTable(Table[Force]):
    """The forced tokens of each slot: ``ids`` int32 ``[slots, width]``."""

    def __init__(self, engine: EngineFacts) -> None:
        self._tokens = SlotLists(engine.slots, engine.device, {"ids": (np.int32, ())})
        self._kernels = engine.kernels
        self.used = self._tokens.used

    def write(
        self, slot: int, entries: Sequence[Force], _patterns: Mapping[Pattern, CompiledPattern]
    ) -> bool:
        """Replace the tokens of a slot."""
        ids = [token_id for entry in entries for token_id in entry.token_ids or ()]
        self._tokens.write(slot, len(ids), {"ids": ids})
        return True

    def flush(self) -> None:
        """Copy changed tokens to the device."""
        self._tokens.flush()

    def apply(self, logits: torch.Tensor, rows: Rows) -> None:
        """Leave only the forced token in rows whose slot forces one at their position, in place."""
        ids, counts = self._tokens.column("ids"), self._tokens.counts
        if self._kernels:
            force_tokens(logits, ids, counts, rows.slots, rows.positions)
            return
        active = (rows.positions >= 0) & (rows.positions < counts[rows.slots])
        apply_force(logits, ids[rows.slots, rows.positions.long() * active].long(), active)

    def warm_up(self, vocab: int, dtype: torch.dtype) -> None:
        """Compile the kernel."""
        zeros = torch.zeros(2, dtype=torch.int64, device=self._tokens.device)
        logits = torch.zeros(2, vocab, device=zeros.device)
        force_tokens(logits, self._tokens.column("ids"), self._tokens.counts, zeros, zeros)


def apply_force(
    logits: torch.Tensor, token_ids: torch.Tensor, active: torch.Tensor
) -> torch.Tensor:
    """Set all logits but the forced token's to -inf in the active rows, in place.

    Args:
        logits: ``[rows, vocab]`` float32.
        token_ids: ``[rows]`` int64.
        active: ``[rows]`` bool.

    """
    forced = token_ids.unsqueeze(1)
    kept = logits.gather(1, forced)
    return logits.masked_fill_(active.unsqueeze(1), float("-inf")).scatter_(1, forced, kept)
