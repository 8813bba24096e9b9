"""Text patterns on rows whose generated tokens the host knows (vLLM's V1 runner)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from logit_processors.bias import apply_set_bias
from logit_processors.patterns import Automaton, TokenSets
from logit_processors.program import Program
from logit_processors.suppress import apply_set_suppress
from logit_processors.vocabulary import Vocabulary

_REMEMBERED = 16


@dataclass
class TextStates:
    """The automata of one request and where they stand in its generated tokens.

    The states are only a cache: they follow from ``output`` alone, so a preempted and
    resumed request, or one whose last tokens were taken back, gets the same ones.
    """

    program: Program
    output: Sequence[int]
    _biased: list[Automaton] = field(init=False)
    _suppressed: list[Automaton] = field(init=False)
    _seen: int = 0
    _newest: list[int] = field(default_factory=list)
    _states: dict[Automaton, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._biased = [
            Automaton.of(entry.text, ignore_case=entry.ignore_case)
            for entry in self.program.text_bias
        ]
        self._suppressed = [
            Automaton.of(entry.text, ignore_case=entry.ignore_case)
            for entry in self.program.text_suppress
        ]

    def advance(self, vocabulary: Vocabulary) -> None:
        """Bring the states up to the tokens generated so far."""
        size = len(self.output)
        automata = {*self._biased, *self._suppressed}
        # What was seen last must still be there: drafts are taken back and replaced.
        unchanged = list(self.output[max(0, self._seen - _REMEMBERED) : self._seen]) == self._newest
        if self._states and unchanged:
            new = b"".join(vocabulary.text_bytes(token) for token in self.output[self._seen :])
            self._states = {a: a.step(self._states[a], new) for a in automata}
        else:
            self._states = {a: a.state_after(self.output, vocabulary) for a in automata}
        self._seen = size
        self._newest = list(self.output[-_REMEMBERED:])

    def biased(self) -> list[tuple[Automaton, int, float]]:
        """Return (automaton, state, add in nats) of the biases that apply now."""
        return [
            (automaton, self._states[automaton], entry.add)
            for automaton, entry in zip(self._biased, self.program.text_bias, strict=True)
            if entry.when.covers(self._seen)
        ]

    def suppressed(self) -> list[tuple[Automaton, int]]:
        """Return (automaton, state) of the suppressions that apply now."""
        return [
            (automaton, self._states[automaton])
            for automaton, entry in zip(self._suppressed, self.program.text_suppress, strict=True)
            if entry.when.covers(self._seen)
        ]


class HostText:
    """The text controls of one step: ``states[row]`` for each row of the logits that has any."""

    def __init__(
        self, states: Sequence[tuple[int, TextStates]], sets: TokenSets[torch.Tensor] | None
    ) -> None:
        self._states = states
        self._sets = sets

    def apply_bias(self, logits: torch.Tensor) -> None:
        """Add to every token that advances or completes a biased text, in place."""
        for row, states in self._states:
            for automaton, state, add in states.biased():
                token_ids = self._token_ids(automaton, state, advancing=True)
                apply_set_bias(logits, row, token_ids, add)

    def apply_suppress(self, logits: torch.Tensor) -> None:
        """Set every token that would complete a suppressed text to -inf, in place."""
        for row, states in self._states:
            for automaton, state in states.suppressed():
                token_ids = self._token_ids(automaton, state, advancing=False)
                apply_set_suppress(logits, row, token_ids)

    def _token_ids(self, automaton: Automaton, state: int, *, advancing: bool) -> torch.Tensor:
        assert self._sets is not None, "text patterns need a vocabulary"
        return self._sets.get(automaton, state, advancing=advancing)
