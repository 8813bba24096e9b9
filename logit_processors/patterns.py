"""Text patterns as automata over bytes, and the tokens that move them.

A pattern of ``m`` bytes has ``m`` states: state ``s`` says that the last ``s`` generated
bytes are the first ``s`` of the pattern, and no more are (Knuth, Morris, Pratt 1977). It
is a function of the last ``m - 1`` bytes alone, so it can be recomputed at any step and
nothing has to be rolled back or restored. Which tokens complete or advance the pattern
from a state follows from prefix, suffix and substring look-ups in the vocabulary, not
from walking every token: some microseconds a state.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from logit_processors.vocabulary import Vocabulary, fold_ascii

POOL_BYTES = 256 << 20
"""Memory on the device for the patterns of running requests."""
TokenIds = NDArray[np.int64]
T = TypeVar("T")


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

    def completing(self, state: int, vocabulary: Vocabulary) -> TokenIds:
        """Return the ids, ascending, of the tokens that complete the pattern from ``state``."""
        index = vocabulary.index(ignore_case=self.ignore_case)
        pieces = [index.containing(self.pattern)]
        # No token is longer than the longest: what is left of a pattern may be.
        least = len(self.pattern) - index.longest
        pieces += [
            index.forward.starting_with(self.pattern[matched:])
            for matched in self.chain(state)
            if matched and matched >= least
        ]
        return np.unique(np.concatenate(pieces))

    def advancing(self, state: int, vocabulary: Vocabulary) -> TokenIds:
        """Return the ids, ascending, of tokens that advance or complete it from ``state``.

        A token advances if more of the pattern is matched after it than before, and more
        than its leading white space: a lone space begins every word alike.
        """
        index = vocabulary.index(ignore_case=self.ignore_case)
        size = len(self.pattern)
        least = max(state, self.leading_space) + 1
        pieces = [self.completing(state, vocabulary)]
        # Tokens that start the pattern anew and get further than the present match.
        pieces += [
            index.backward.starting_with(self.pattern[:matched][::-1])
            for matched in range(least, min(size, index.longest + 1))
        ]
        # Tokens that are the next bytes of a match already under way: in a pattern that repeats
        # itself, the same ones of many matches.
        following = {
            self.pattern[matched:end]
            for matched in self.chain(state)
            for end in range(max(least, matched + 1), min(size, matched + index.longest + 1))
        }
        pieces += [index.forward.equal_to(token) for token in following]
        return np.unique(np.concatenate(pieces))


class TokenSets(Generic[T]):
    """The token sets of recently used automaton states, at most ``capacity_bytes`` of them.

    ``convert`` turns the ids into what the caller applies (a device tensor, say).
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        convert: Callable[[TokenIds], T],
        capacity_bytes: int = 256 << 20,
    ) -> None:
        self._vocabulary = vocabulary
        self._convert = convert
        self._free = capacity_bytes
        self._sets: OrderedDict[tuple[bytes, bool, int, bool], tuple[T, int]] = OrderedDict()

    def get(self, automaton: Automaton, state: int, *, advancing: bool) -> T:
        """Return the tokens that complete (or, if ``advancing``, advance) it from ``state``."""
        key = (automaton.pattern, automaton.ignore_case, state, advancing)
        if (kept := self._sets.get(key)) is not None:
            self._sets.move_to_end(key)
            return kept[0]
        find = automaton.advancing if advancing else automaton.completing
        ids = find(state, self._vocabulary)
        value, size = self._convert(ids), ids.nbytes + 256
        self._sets[key] = value, size
        self._free -= size
        while self._free < 0 and len(self._sets) > 1:
            self._free += self._sets.popitem(last=False)[1][1]
        return value
