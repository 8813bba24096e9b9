"""Text patterns on rows whose generated tokens the host knows (vLLM's V1 runner)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from logit_processors.bias import apply_set_bias
from logit_processors.pattern_sets import CompiledPattern
from logit_processors.patterns import Automaton
from logit_processors.program import Program
from logit_processors.suppress import apply_set_suppress
from logit_processors.token_sets import TokenSets
from logit_processors.vocabulary import Vocabulary

_REMEMBERED = 16


@dataclass
class TextStates:
    """The automata of one request and where they stand in its generated tokens.

    The states are only a cache: they follow from ``output`` alone, so a preempted and
    resumed request, or one whose last tokens were taken back, gets the same ones.
    """

    program: Program
    patterns: Sequence[CompiledPattern]
    """Those of its text biases, then those of its text suppressions."""
    output: Sequence[int]
    _seen: int = 0
    _newest: list[int] = field(default_factory=list)
    _states: dict[Automaton, int] = field(default_factory=dict)

    def advance(self, vocabulary: Vocabulary) -> None:
        """Bring the states up to the tokens generated so far."""
        size = len(self.output)
        automata = {compiled.pattern.automaton for compiled in self.patterns}
        # What was seen last must still be there: drafts are taken back and replaced.
        unchanged = list(self.output[max(0, self._seen - _REMEMBERED) : self._seen]) == self._newest
        if self._states and unchanged:
            new = b"".join(vocabulary.text_bytes(token) for token in self.output[self._seen :])
            self._states = {a: a.step(self._states[a], new) for a in automata}
        else:
            self._states = {a: a.state_after(self.output, vocabulary) for a in automata}
        self._seen = size
        self._newest = list(self.output[-_REMEMBERED:])

    def biased(self) -> list[tuple[CompiledPattern, int, float]]:
        """Return (pattern, state, add in nats) of the biases that apply now."""
        entries = self.program.text_bias
        return [
            (compiled, self._states[compiled.pattern.automaton], entry.add)
            for entry, compiled in zip(entries, self.patterns, strict=False)
            if entry.when.covers(self._seen)
        ]

    def suppressed(self) -> list[tuple[CompiledPattern, int]]:
        """Return (pattern, state) of the suppressions that apply now."""
        patterns = self.patterns[len(self.program.text_bias) :]
        return [
            (compiled, self._states[compiled.pattern.automaton])
            for entry, compiled in zip(self.program.text_suppress, patterns, strict=True)
            if entry.when.covers(self._seen)
        ]


class HostText:
    """The text controls of one step: ``states[row]`` for each row of the logits that has any."""

    def __init__(self, states: Sequence[tuple[int, TextStates]], sets: TokenSets) -> None:
        self._states = states
        self._sets = sets

    def apply_bias(self, logits: torch.Tensor) -> None:
        """Add to every token that advances or completes a biased text, in place."""
        for row, states in self._states:
            for compiled, state, add in states.biased():
                apply_set_bias(logits, row, self._sets.get(compiled, state), add)

    def apply_suppress(self, logits: torch.Tensor) -> None:
        """Set every token that would complete a suppressed text to -inf, in place."""
        for row, states in self._states:
            for compiled, state in states.suppressed():
                apply_set_suppress(logits, row, self._sets.get(compiled, state))
