"""Text patterns on rows whose generated tokens are only on the device (vLLM's V2 runner).

Two small kernels: one runs the last bytes of every row through its patterns' automata, one applies
the token sets of the resulting states. The host does not wait for the device. No state is kept
between steps, so that reused slots, preemption and rejected drafts leave nothing behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from vllm.triton_utils import tl, triton

from logit_processors.blocks import block_of
from logit_processors.control import Control, WindowedEntry
from logit_processors.history import DeviceHistory
from logit_processors.pattern_sets import CompiledPattern
from logit_processors.patterns import POOL_BYTES, Pattern
from logit_processors.slot_lists import EntryTable
from logit_processors.table import Rows, Table
from logit_processors.texts import ValueOf
from logit_processors.token_masks import MaskPool, TokenBytes
from logit_processors.vocabulary import Vocabulary

_BLOCK = 1024


@triton.jit
def _token_at(fed, offset, committed, committed_stride, step_row, slot, last, back):  # type: ignore[no-untyped-def]
    """Return the token ``back`` places before the one just fed."""
    is_draft = back <= tl.load(offset + step_row)
    draft = tl.load(fed + step_row - back, mask=is_draft, other=0).to(tl.int64)
    where = committed + slot * committed_stride + last - back
    older = tl.load(where, mask=is_draft == 0, other=0).to(tl.int64)
    return tl.where(is_draft, draft, older)


@triton.jit
def _walk_kernel(  # type: ignore[no-untyped-def]
    out,  # [rows, entries] int32: row of the pool, or -1
    patterns,  # [rows, entries] int64: pattern, or -1
    entries,
    step_rows,
    slots,
    last,
    positions,
    fed,
    offset,
    committed,
    committed_stride,
    token_offsets,
    token_data,
    pool_rows,
    pool_rows_stride,
    pool_lengths,
    transitions,
    transitions_stride,
):
    row = tl.program_id(0)
    at = row * entries + tl.program_id(1)
    pattern = tl.load(patterns + at)
    if pattern < 0:
        tl.store(out + at, -1)
        return
    step_row = tl.load(step_rows + row)
    slot = tl.load(slots + row).to(tl.int64)
    newest = tl.load(last + row).to(tl.int64)
    generated = tl.load(positions + row)
    needed = tl.load(pool_lengths + pattern) - 1
    # Go back over tokens until their bytes determine the state.
    back = 0
    covered = 0
    while (covered < needed) & (back < generated):
        token = _token_at(fed, offset, committed, committed_stride, step_row, slot, newest, back)
        covered += tl.load(token_offsets + token + 1) - tl.load(token_offsets + token)
        back += 1
    state = 0
    state_row = tl.load(pool_rows + pattern * pool_rows_stride).to(tl.int64)
    while back > 0:
        back -= 1
        token = _token_at(fed, offset, committed, committed_stride, step_row, slot, newest, back)
        byte_at = tl.load(token_offsets + token)
        end = tl.load(token_offsets + token + 1)
        while byte_at < end:
            byte = tl.load(token_data + byte_at).to(tl.int64)
            state = tl.load(transitions + state_row * transitions_stride + byte).to(tl.int32)
            state_row = tl.load(pool_rows + pattern * pool_rows_stride + state).to(tl.int64)
            byte_at += 1
    tl.store(out + at, state_row.to(tl.int32))


@triton.jit
def _apply_kernel(  # type: ignore[no-untyped-def]
    logits,
    logits_stride,
    vocab,
    states,  # [rows, entries] int32: row of the pool, or -1
    adds,  # [rows, entries] float32; -inf suppresses
    entries,
    masks,
    masks_stride,
    BLOCK: tl.constexpr,  # noqa: N803 - Triton's way to name constants
):
    row = tl.program_id(0).to(tl.int64)
    token = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = token < vocab
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    entry = 0
    while entry < entries:
        state = tl.load(states + row * entries + entry).to(tl.int64)
        if state >= 0:
            add = tl.load(adds + row * entries + entry)
            word = tl.load(masks + state * masks_stride + token // 32, mask=inside, other=0)
            hit = ((word >> (token % 32)) & 1) != 0
            total = tl.where(hit, total + add, total)
        entry += 1
    # Most blocks of most rows hold no token that a pattern names.
    if tl.max(tl.abs(total), axis=0) > 0.0:
        where = logits + row * logits_stride + token
        tl.store(where, tl.load(where, mask=inside, other=0.0) + total, mask=inside)


class DeviceTexts:
    """Matches text patterns on the device, with a pool of all running requests' patterns."""

    def __init__(self, vocabulary: Vocabulary, device: torch.device) -> None:
        self.pool = MaskPool(vocabulary.width, device, POOL_BYTES)
        self.tokens = TokenBytes(vocabulary, device)
        self._device = device

    def table(self, slots: int, control: Control[Any], value_of: ValueOf) -> Table[Any]:
        """Return a table of entries with a text pattern each."""
        return _DeviceTextTable(self, EntryTable(slots, self._device), control, value_of)


class _DeviceTextTable(Table[WindowedEntry]):
    def __init__(
        self, texts: DeviceTexts, entries: EntryTable, control: Control[Any], value_of: ValueOf
    ) -> None:
        self._texts = texts
        self._entries = entries
        self._control = control
        self._value_of = value_of
        self._held: dict[int, list[Pattern]] = {}
        self.used = entries.used

    def write(
        self,
        slot: int,
        entries: Sequence[WindowedEntry],
        patterns: Mapping[Pattern, CompiledPattern],
    ) -> bool:
        pool = self._texts.pool
        pool.release(self._held.pop(slot, ()))
        matched = [
            (entry, pattern) for entry in entries for pattern in self._control.patterns(entry)
        ]
        numbers = pool.acquire([patterns[pattern] for _, pattern in matched])
        if numbers is None:
            self._entries.put(slot, ())
            return False
        if matched:
            self._held[slot] = [pattern for _, pattern in matched]
        self._entries.put(
            slot,
            [
                (number, self._value_of(entry), entry.bounds)
                for number, (entry, _) in zip(numbers, matched, strict=True)
            ],
        )
        return True

    def flush(self) -> None:
        self._entries.flush()

    def apply(self, logits: torch.Tensor, rows: Rows) -> None:
        pool, history = self._texts.pool, rows.history
        assert isinstance(history, DeviceHistory)
        patterns, values, active = self._entries.at(rows.slots, rows.positions)
        states = states_after(torch.where(active, patterns, -1), pool, self._texts.tokens, history)
        rows_count, vocab = logits.shape
        block = block_of(vocab, logits.device, _BLOCK)
        _apply_kernel[(rows_count, triton.cdiv(vocab, block))](
            logits,
            logits.stride(0),
            vocab,
            states,
            values,
            states.shape[1],
            pool.masks,
            pool.masks.stride(0),
            BLOCK=block,
        )


def states_after(
    patterns: torch.Tensor, pool: MaskPool, tokens: TokenBytes, history: DeviceHistory
) -> torch.Tensor:
    """Return the pool's row for the current state of each pattern: int32 ``[rows, entries]``.

    Args:
        patterns: ``[rows, entries]`` int64, numbers of the pool; -1 is none, and stays -1.
        pool: the pool of patterns.
        tokens: the vocabulary's text.
        history: the history of the rows.

    """
    count, entries = patterns.shape
    states = torch.empty((count, entries), dtype=torch.int32, device=patterns.device)
    _walk_kernel[(count, entries)](
        states,
        patterns,
        entries,
        history.step_rows,
        history.slots,
        history.newest,
        history.positions,
        history.fed,
        history.offset,
        history.committed,
        history.committed.stride(0),
        tokens.offsets,
        tokens.data,
        pool.rows,
        pool.rows.stride(0),
        pool.lengths,
        pool.transitions,
        pool.transitions.stride(0),
    )
    return states
