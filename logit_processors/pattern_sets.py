"""The tokens that advance or complete a text pattern, for every state of its automaton.

Compiled in the API process, in a thread: the worker only copies them to its device. Look-ups are
shared by the states of a pattern, so that a pattern costs a few look-ups per byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from time import sleep
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from logit_processors.checks import require
from logit_processors.patterns import Automaton, Pattern
from logit_processors.vocabulary import Index, Vocabulary

TokenIds = NDArray[np.int64]

_NOTHING = np.zeros(0, np.int64)


@dataclass(frozen=True)
class CompiledPattern:
    """A pattern of ``m`` bytes and the token sets of its ``m`` states.

    ``of_state[s]`` is the number of the set of state ``s``; states share equal sets. The first
    sets are ``listed``, each as int32 ids; the others are ``masked``, with bit ``t % 32`` of
    int32 word ``t // 32`` for token ``t``. The shorter form is used.
    """

    pattern: Pattern
    listed: tuple[bytes, ...]
    masked: tuple[bytes, ...]
    of_state: bytes

    @classmethod
    def of(cls, pattern: Pattern, vocabulary: Vocabulary) -> Self:
        """Compile a pattern, some milliseconds for one of 256 bytes."""
        find = _advancing if pattern.advancing else _completing
        words = -(-vocabulary.width // 32)
        listed: dict[bytes, int] = {}
        masked: dict[bytes, int] = {}
        states: list[tuple[dict[bytes, int], int]] = []
        for ids in find(pattern.automaton, vocabulary.index(ignore_case=pattern.ignore_case)):
            data = ids.astype(np.int32).tobytes()
            form = listed if len(data) <= 4 * words else masked
            states.append((form, form.setdefault(data, len(form))))
            _give_way()
        numbers = (number + len(listed) * (form is masked) for form, number in states)
        masks = tuple(_mask(np.frombuffer(data, np.int32), words) for data in masked)
        return cls(pattern, tuple(listed), masks, bytes(numbers))

    @property
    def nbytes(self) -> int:
        """Return the memory that its sets take."""
        return len(self.of_state) + sum(map(len, self.listed)) + sum(map(len, self.masked))

    def ids(self, state: int) -> TokenIds:
        """Return the ids, ascending, of the tokens in a state's set."""
        number = self.of_state[state]
        if number < len(self.listed):
            return np.frombuffer(self.listed[number], np.int32).astype(np.int64)
        mask = np.frombuffer(self.masked[number - len(self.listed)], np.uint8)
        return np.flatnonzero(np.unpackbits(mask, bitorder="little"))

    def to_wire(self) -> list[Any]:
        """Return the sets as values that msgpack carries."""
        return [list(self.listed), list(self.masked), self.of_state]

    @classmethod
    def from_wire(cls, pattern: Pattern, wire: Any) -> Self:
        """Build the sets from :meth:`to_wire`; ControlError if they are not of this pattern."""
        listed, masked, of_state = wire
        require(
            len(of_state) == len(pattern)
            and all(number < len(listed) + len(masked) for number in of_state),
            "patterns",
            f"{len(of_state)} token sets do not fit a pattern of {len(pattern)} bytes",
        )
        return cls(pattern, tuple(listed), tuple(masked), of_state)


def _completing(automaton: Automaton, index: Index) -> Iterator[TokenIds]:
    """Yield, state by state, the ids of the tokens that complete the pattern."""
    pattern, borders = automaton.pattern, automaton.borders
    sets = [index.containing(pattern)]
    yield sets[0]
    for state in range(1, len(pattern)):
        # The rest of a pattern may be longer than any token.
        rest = len(pattern) - state
        ends = index.forward.starting_with(pattern[state:]) if rest <= index.longest else _NOTHING
        # A token that completes a shorter match completes the pattern, too.
        sets.append(_union(ends, sets[borders[state]]))
        yield sets[state]


def _advancing(automaton: Automaton, index: Index) -> Iterator[TokenIds]:
    """Yield, state by state, the ids of the tokens that advance or complete the pattern.

    A token advances the pattern if more of it is matched afterwards, and more than its leading
    white space: a single space begins every word.
    """
    pattern = automaton.pattern
    anew = _starting_anew(pattern, index)
    following = _following(pattern, index)
    for state, completing in enumerate(_completing(automaton, index)):
        least = max(state, automaton.leading_space) + 1
        found = {*_reaching(least, automaton.chain(state), following)}
        yield _union(completing, anew[least], np.array(sorted(found), np.int64))


def _reaching(
    least: int, matches: list[int], following: list[list[tuple[int, list[int]]]]
) -> Iterator[int]:
    """Yield the tokens that follow one of some matches to a length of at least ``least``."""
    for matched in matches:
        for end, tokens in following[matched]:
            if end < least:
                break
            yield from tokens


def _starting_anew(pattern: bytes, index: Index) -> list[TokenIds]:
    """Return, by length, the tokens that end with so many bytes of the pattern's or more.

    Tokens that end with the whole pattern complete it and are left out. ``[len(pattern) + 1]``
    lists of ids.
    """
    sets = [_NOTHING] * (len(pattern) + 1)
    for length in range(min(len(pattern) - 1, index.longest), 0, -1):
        ending = index.backward.starting_with(pattern[:length][::-1])
        sets[length] = _union(ending, sets[length + 1])
    return sets


def _following(pattern: bytes, index: Index) -> list[list[tuple[int, list[int]]]]:
    """Return, by the length of a match, the tokens that are the pattern's next bytes.

    Each entry is (length of the match afterwards, ids), the longest first. A match of length 0
    has no entries: tokens that start the pattern are found elsewhere.
    """
    found: list[list[tuple[int, list[int]]]] = [[] for _ in pattern]
    for matched in range(1, len(pattern)):
        for end in range(min(len(pattern) - 1, matched + index.longest), matched, -1):
            token = pattern[matched:end]
            if token in index.spellings:
                found[matched].append((end, index.forward.equal_to(token).tolist()))
        _give_way()
    return found


def _give_way() -> None:
    """Let other threads run: otherwise the event loop waits 5 ms for the interpreter each time."""
    sleep(0)


def _union(*sets: TokenIds) -> TokenIds:
    """Return the union of some sets of ids, ascending."""
    filled = [ids for ids in sets if len(ids)]
    return np.unique(np.concatenate(filled)) if filled else _NOTHING


def _mask(ids: NDArray[np.int32], words: int) -> bytes:
    bits = np.zeros(32 * words, bool)
    bits[ids] = True
    return np.packbits(bits, bitorder="little").tobytes()
