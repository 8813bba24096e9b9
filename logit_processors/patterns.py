"""Text patterns as automata over bytes, and the tokens that move them.

A pattern of ``m`` bytes has ``m`` states: state ``s`` says that the last ``s`` generated
bytes are the first ``s`` of the pattern, and no more are (Knuth, Morris, Pratt 1977). It
is a function of the last ``m - 1`` bytes alone, so it can be recomputed at any step and
nothing has to be rolled back or restored. Which tokens complete or advance the pattern from
a state follows from prefix, suffix and substring look-ups in the vocabulary, not from walking
every token (``pattern_sets``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from logit_processors.vocabulary import Vocabulary, fold_ascii

MAX_PATTERN_BYTES = 256
"""UTF-8 length of one text pattern."""
POOL_BYTES = 256 << 20
"""Memory on the device for the patterns of running requests."""


def state_bytes(width: int) -> int:
    """Return what a state takes on the device: a bit a token, and a transition a byte."""
    return 4 * -(-width // 32) + 2 * 256


def pool_states(width: int) -> int:
    """Return how many states, of a byte of a pattern each, the device has room for."""
    return POOL_BYTES // state_bytes(width)


@dataclass(frozen=True)
class Automaton:
    """The matcher of one byte pattern (not empty); with ``ignore_case``, ASCII folds."""

    pattern: bytes
    ignore_case: bool = False

    @classmethod
    def of(cls, text: str, *, ignore_case: bool) -> Automaton:
        """Make the automaton of a text pattern."""
        pattern = text.encode()
        return cls(fold_ascii(pattern) if ignore_case else pattern, ignore_case)

    @cached_property
    def borders(self) -> tuple[int, ...]:
        """``borders[s]``: length of the longest proper prefix that ends the first s bytes."""
        table = [0, 0]
        for byte in self.pattern[1:]:
            length = table[-1]
            while length and self.pattern[length] != byte:
                length = table[length]
            table.append(length + (self.pattern[length] == byte))
        return tuple(table)

    @property
    def leading_space(self) -> int:
        """Bytes of white space before the pattern's first other byte; 0 if there is none."""
        return len(self.pattern) - len(self.pattern.lstrip()) if self.pattern.strip() else 0

    def chain(self, state: int) -> list[int]:
        """Return ``state`` and every shorter match that it implies, longest first, 0 last."""
        states = [state]
        while states[-1]:
            states.append(self.borders[states[-1]])
        return states

    def step(self, state: int, data: bytes) -> int:
        """Return the state after ``data``; a completed match falls back to its border."""
        pattern, borders = self.pattern, self.borders
        for byte in fold_ascii(data) if self.ignore_case else data:
            while state and pattern[state] != byte:
                state = borders[state]
            state += pattern[state] == byte
            if state == len(pattern):
                state = borders[state]
        return state

    def state_after(self, token_ids: Sequence[int], vocabulary: Vocabulary) -> int:
        """Return the state after generating ``token_ids``, from the last bytes that matter."""
        needed = len(self.pattern) - 1
        tail: list[bytes] = []
        for token_id in reversed(token_ids):
            if needed <= 0:
                break
            tail.append(vocabulary.text_bytes(token_id))
            needed -= len(tail[-1])
        return self.step(0, b"".join(reversed(tail)))


@dataclass(frozen=True)
class Pattern:
    """A text pattern of a program, and which tokens are meant.

    Those that complete it or, if ``advancing``, also those that advance it.
    """

    automaton: Automaton
    advancing: bool

    def __len__(self) -> int:
        return len(self.automaton.pattern)

    @property
    def ignore_case(self) -> bool:
        """Say whether ASCII letters match in either case."""
        return self.automaton.ignore_case
