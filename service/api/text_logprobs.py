"""The ``logprobs`` of a completion's choices, for a whole answer or event by event."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from service.distributions.openai_logprobs import Entry, completion_logprobs
from service.distributions.text_walk import Placed, TextWalk
from service.distributions.token_texts import TokenTexts

_STEPS = 1024
"""Tokens that are processed between two pieces."""


class _Prompt(NamedTuple):
    """An echoed prompt."""

    token_ids: Sequence[int]
    rows: Sequence[Entry] | None
    text: str


class TextLogprobs:
    """Encodes the logprobs of one request.

    Args:
        texts: the texts of tokens.
        count: alternatives of a token, or DENSE.
        as_ids: whether tokens are shown as ``token_id:…``.
        skips_special: whether control tokens are left out of the text.
        shows_tokens: whether generated tokens are shown, and not only an echoed prompt.

    """

    def __init__(
        self,
        texts: TokenTexts,
        count: int,
        *,
        as_ids: bool,
        skips_special: bool,
        shows_tokens: bool,
    ) -> None:
        self._texts = texts
        self._count = count
        self._as_ids = as_ids
        self._skips_special = skips_special
        self._shows_tokens = shows_tokens
        self._prompts: dict[int, _Prompt] = {}
        self._ends: dict[int, tuple[list[Placed], TextWalk]] = {}
        self._walks: dict[int, TextWalk] = {}
        self._waiting: dict[int, tuple[list[int], list[Entry | None]]] = {}
        self._starts: dict[int, tuple[int, Sequence[int]]] = {}

    @property
    def waits(self) -> bool:
        """Say whether tokens wait for their event."""
        return bool(self._waiting)

    def take_prompt(
        self, first: int, token_ids: Sequence[int], rows: Sequence[Entry] | None, text: str
    ) -> None:
        """Keep an echoed prompt; only the first call counts.

        Args:
            first: index of its first choice.
            token_ids: its tokens.
            rows: a row for each token from the second on, if there are any.
            text: the echoed text.

        """
        self._prompts.setdefault(first, _Prompt(token_ids, rows, text))

    def take(
        self,
        choice: int,
        first: int,
        prompt: Sequence[int] | None,
        token_ids: Sequence[int],
        rows: Sequence[Entry] | None,
    ) -> None:
        """Keep tokens until their event or answer is written.

        Args:
            choice: index of their choice.
            first: index of the first choice of the same prompt.
            prompt: the prompt's tokens, with the first tokens of a choice.
            token_ids: the tokens.
            rows: a row for each token.

        """
        self._starts.setdefault(choice, (first, prompt or ()))
        kept_ids, kept = self._waiting.setdefault(choice, ([], []))
        if self._shows_tokens:
            blank: list[Entry | None] = [None] * len(token_ids)
            kept_ids += token_ids
            kept.extend(rows or blank)

    def pieces(self, choice: int) -> Iterator[bytes]:
        """Yield the logprobs of a choice's waiting tokens, as JSON in pieces."""
        token_ids, rows = self._waiting.pop(choice, ([], []))
        tokens: list[Placed] = []
        if (walk := self._walks.get(choice)) is None:
            first, prompt = self._starts.get(choice, (choice, ()))
            tokens, walk = self._echoed(first, prompt)
            blank: list[Entry | None] = [None] * len(tokens)
            echoed = (self._prompts[first].rows or blank[1:]) if tokens else ()
            rows = [*blank[:1], *echoed, *rows]
            self._walks[choice] = walk
        for at in range(0, len(token_ids), _STEPS):
            tokens += map(walk.step, token_ids[at : at + _STEPS])
            yield b""
        yield from completion_logprobs(self._texts, tokens, rows, self._count, self._as_ids)

    def _echoed(self, first: int, prompt: Sequence[int]) -> tuple[list[Placed], TextWalk]:
        """Return the echoed tokens of a choice's prompt, and a walk that continues after them."""
        if (kept := self._prompts.get(first)) is None:
            walk = TextWalk(self._texts, skips_special=self._skips_special)
            walk.follow(prompt)
            return [], walk
        if first not in self._ends:
            walk = TextWalk(self._texts, skips_special=self._skips_special)
            self._ends[first] = walk.along(kept.token_ids, kept.text), walk
        tokens, end = self._ends[first]
        return list(tokens), end.branch()
