"""Automata of text patterns on the device: transitions and token sets of every state.

For rows whose tokens only the device knows: which state a row is in cannot be asked, so
the sets of all states of a pattern are there beforehand, one bit a token.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import torch
from numpy.typing import NDArray

from logit_processors.controls import MAX_PATTERN_BYTES
from logit_processors.patterns import Automaton, state_bytes
from logit_processors.vocabulary import Vocabulary

_FIRST_CAPACITY = 64

Key = tuple[bytes, bool, bool]


class MaskPool:
    """Rows of one state each, shared by requests with the same pattern.

    ``masks``: int32 ``[capacity, ceil(vocab / 32)]``, bit ``t % 32`` of word ``t // 32`` for
    token t. ``transitions``: int16 ``[capacity, 256]``, the next state by byte. ``rows``:
    int32 ``[patterns, 256]``, the row of each state of a pattern.
    """

    def __init__(self, vocabulary: Vocabulary, device: torch.device, capacity_bytes: int) -> None:
        self._vocabulary = vocabulary
        self._words = -(-vocabulary.width // 32)
        self._max_rows = max(_FIRST_CAPACITY, capacity_bytes // state_bytes(vocabulary.width))
        self.masks = torch.zeros(0, self._words, dtype=torch.int32, device=device)
        self.transitions = torch.zeros(0, 256, dtype=torch.int16, device=device)
        # A pattern has a state for each of its bytes.
        self.rows = torch.zeros(0, MAX_PATTERN_BYTES, dtype=torch.int32, device=device)
        self.lengths = torch.zeros(0, dtype=torch.int32, device=device)
        self._free_rows: list[int] = []
        self._free_patterns: list[int] = []
        self._patterns: OrderedDict[Key, tuple[int, list[int]]] = OrderedDict()
        self._users: dict[Key, int] = {}

    def acquire(self, automaton: Automaton, *, advancing: bool) -> tuple[Key, int] | None:
        """Return a handle and the pattern's number and hold it; None if there is no room."""
        key = (automaton.pattern, automaton.ignore_case, advancing)
        if key not in self._patterns and not self._insert(key, automaton):
            return None
        self._patterns.move_to_end(key)
        self._users[key] = self._users.get(key, 0) + 1
        return key, self._patterns[key][0]

    def release(self, key: Key) -> None:
        """Let go of a pattern; it stays until its room is needed."""
        self._users[key] -= 1
        if not self._users[key]:
            del self._users[key]

    def _insert(self, key: Key, automaton: Automaton) -> bool:
        states = len(automaton.pattern)
        if not self._make_room(states):
            return False
        rows = [self._free_rows.pop() for _ in range(states)]
        pattern = self._free_patterns.pop()
        device = self.masks.device
        index = torch.tensor(rows, device=device)
        masks = np.stack([self._mask(automaton, s, advancing=key[2]) for s in range(states)])
        self.masks[index] = torch.from_numpy(masks).to(device)
        self.transitions[index] = torch.from_numpy(_transitions(automaton)).to(device)
        self.rows[pattern, :states] = index.int()
        self.lengths[pattern] = states
        self._patterns[key] = pattern, rows
        return True

    def _mask(self, automaton: Automaton, state: int, *, advancing: bool) -> NDArray[np.int32]:
        find = automaton.advancing if advancing else automaton.completing
        bits = np.zeros(self._words * 32, bool)
        bits[find(state, self._vocabulary)] = True
        return np.packbits(bits, bitorder="little").view(np.int32)

    def _make_room(self, states: int) -> bool:
        while len(self._free_rows) < states and len(self.masks) < self._max_rows:
            self._grow()
        for key in [key for key in self._patterns if key not in self._users]:
            if len(self._free_rows) >= states:
                break
            pattern, rows = self._patterns.pop(key)
            self._free_patterns.append(pattern)
            self._free_rows += rows
        if not self._free_patterns:
            self._grow_patterns()
        return len(self._free_rows) >= states

    def _grow(self) -> None:
        old = len(self.masks)
        new = min(self._max_rows, max(_FIRST_CAPACITY, 2 * old))
        self.masks = _enlarged(self.masks, new)
        self.transitions = _enlarged(self.transitions, new)
        self._free_rows.extend(range(new - 1, old - 1, -1))

    def _grow_patterns(self) -> None:
        old = len(self.rows)
        new = max(_FIRST_CAPACITY, 2 * old)
        self.rows = _enlarged(self.rows, new)
        self.lengths = _enlarged(self.lengths, new)
        self._free_patterns.extend(range(new - 1, old - 1, -1))


def _transitions(automaton: Automaton) -> NDArray[np.int16]:
    """Return the next state by state and byte, ``[states, 256]``.

    A state goes where its border goes, but for the one byte that the pattern goes on with.
    """
    pattern, borders = automaton.pattern, automaton.borders
    table = np.zeros((len(pattern), 256), np.int16)
    for state, byte in enumerate(pattern):
        table[state] = table[borders[state]]
        following = state + 1 if state + 1 < len(pattern) else borders[-1]
        spellings = {byte, *bytes([byte]).upper()} if automaton.ignore_case else {byte}
        table[state, list(spellings)] = following
    return table


def _enlarged(tensor: torch.Tensor, size: int) -> torch.Tensor:
    larger = tensor.new_zeros((size, *tensor.shape[1:]))
    larger[: len(tensor)] = tensor
    return larger


class TokenBytes:
    """The vocabulary's text on the device: int32 ``offsets`` ``[width + 1]``, uint8 ``data``."""

    def __init__(self, vocabulary: Vocabulary, device: torch.device) -> None:
        texts = [vocabulary.text_bytes(token) for token in range(vocabulary.width)]
        offsets = np.concatenate(([0], np.cumsum([len(text) for text in texts])))
        self.offsets = torch.from_numpy(offsets.astype(np.int32)).to(device)
        self.data = torch.frombuffer(bytearray(b"".join(texts)), dtype=torch.uint8).to(device)
