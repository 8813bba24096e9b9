"""Automata of text patterns on the device: transitions and token sets of every state.

They serve rows whose tokens are only on the device. The host does not know the state of a row, so
that the sets of all states of a pattern are prepared, one bit per token.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from logit_processors.mask_writing import masks_of, transitions_of
from logit_processors.pattern_sets import CompiledPattern
from logit_processors.patterns import MAX_PATTERN_BYTES, Pattern, state_bytes
from logit_processors.upload import upload
from logit_processors.vocabulary import Vocabulary

_FIRST_CAPACITY = 64
_AT_ONCE = 1024
"""States written at once; their sets temporarily take the same memory again."""


class MaskPool:
    """Rows of one state each, shared by requests with the same pattern.

    ``masks``: int32 ``[capacity, ceil(vocab / 32)]``, bit ``t % 32`` of word ``t // 32`` for
    token t. ``transitions``: int16 ``[capacity, 256]``, the next state by byte. ``rows``:
    int32 ``[patterns, 256]``, the row of each state of a pattern.
    """

    def __init__(self, width: int, device: torch.device, capacity_bytes: int) -> None:
        self._words = -(-width // 32)
        self._max_rows = max(_FIRST_CAPACITY, capacity_bytes // state_bytes(width))
        self.masks = torch.zeros(0, self._words, dtype=torch.int32, device=device)
        self.transitions = torch.zeros(0, 256, dtype=torch.int16, device=device)
        # A pattern has a state for each of its bytes.
        self.rows = torch.zeros(0, MAX_PATTERN_BYTES, dtype=torch.int32, device=device)
        self.lengths = torch.zeros(0, dtype=torch.int32, device=device)
        self._free_rows: list[int] = []
        self._free_patterns: list[int] = []
        self._patterns: OrderedDict[Pattern, tuple[int, list[int]]] = OrderedDict()
        self._users: Counter[Pattern] = Counter()

    def acquire(self, patterns: Sequence[CompiledPattern]) -> list[int] | None:
        """Hold patterns and return each pattern's number; None if the pool cannot hold all."""
        wanted = [compiled.pattern for compiled in patterns]
        self._users.update(wanted)
        new = {each.pattern: each for each in patterns if each.pattern not in self._patterns}
        if new and not self._make_room(len(new), sum(map(len, new))):
            self.release(wanted)
            return None
        for block in _blocks(new.values()):
            self._insert(block)
        for pattern in wanted:
            self._patterns.move_to_end(pattern)
        return [self._patterns[pattern][0] for pattern in wanted]

    def release(self, patterns: Iterable[Pattern]) -> None:
        """Release patterns; they stay cached until their memory is needed."""
        self._users.subtract(patterns)
        self._users = +self._users

    def _insert(self, block: list[CompiledPattern]) -> None:
        device = self.masks.device
        numbers = [self._free_patterns.pop() for _ in block]
        rows = np.zeros((len(block), MAX_PATTERN_BYTES), np.int64)
        for own, number, compiled in zip(rows, numbers, block, strict=True):
            states = len(compiled.pattern)
            taken = [self._free_rows.pop() for _ in range(states)]
            own[:states] = taken
            self._patterns[compiled.pattern] = number, taken
        lengths = np.array([len(compiled.pattern) for compiled in block])
        written = upload(rows[np.arange(MAX_PATTERN_BYTES) < lengths[:, None]], device)
        transitions = [transitions_of(compiled.pattern.automaton) for compiled in block]
        self.masks[written] = masks_of(block, self._words, device)
        self.transitions[written] = upload(np.concatenate(transitions), device, torch.int16)
        places = upload(numbers, device)
        self.rows[places] = upload(rows, device, torch.int32)
        self.lengths[places] = upload(lengths, device, torch.int32)

    def _make_room(self, patterns: int, states: int) -> bool:
        while len(self._free_rows) < states and len(self.masks) < self._max_rows:
            self._grow()
        for key in [key for key in self._patterns if key not in self._users]:
            if len(self._free_rows) >= states:
                break
            pattern, rows = self._patterns.pop(key)
            self._free_patterns.append(pattern)
            self._free_rows += rows
        while len(self._free_patterns) < patterns:
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


def _blocks(patterns: Iterable[CompiledPattern]) -> Iterator[list[CompiledPattern]]:
    """Yield patterns in lists whose states may be written at once."""
    block: list[CompiledPattern] = []
    states = 0
    for compiled in patterns:
        if block and states + len(compiled.pattern) > _AT_ONCE:
            yield block
            block, states = [], 0
        block.append(compiled)
        states += len(compiled.pattern)
    if block:
        yield block


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
