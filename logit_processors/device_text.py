"""Text patterns on rows whose generated tokens only the device knows (vLLM's V2 runner).

Two small kernels: one walks the last bytes of every row through its patterns' automata,
one applies the token sets of the states that come out. Neither waits for the device, and
no state is kept between steps: recycled slots, preemption and rejected drafts cannot
leave anything behind.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from vllm.triton_utils import tl, triton

from logit_processors.blocks import block_of
from logit_processors.entries import EntryTable
from logit_processors.token_masks import MaskPool, TokenBytes

_BLOCK = 1024


@dataclass(frozen=True)
class History:
    """Where the tokens of a step's rows are.

    ``fed`` and ``offset`` are ``[step rows]``: the token at each row's input position, and
    how many rows of the same request come before it (draft tokens). Older tokens are in
    ``committed`` ``[slots, max_len]`` int32.
    """

    fed: torch.Tensor
    offset: torch.Tensor
    committed: torch.Tensor


@dataclass(frozen=True)
class TextRows:
    """Rows that text patterns apply to, ``[rows]`` each.

    ``step_rows``: their places in the step; ``slots``: their requests'; ``last``: absolute
    position of the token just fed; ``positions``: tokens generated before this one.
    """

    step_rows: torch.Tensor
    slots: torch.Tensor
    last: torch.Tensor
    positions: torch.Tensor


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
    # Go back until the bytes that the state depends on are covered.
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


class DeviceText:
    """The text controls of one application to some rows."""

    def __init__(
        self,
        patterns: tuple[MaskPool, TokenBytes] | None,
        bias: EntryTable | None,
        suppress: EntryTable | None,
        rows: TextRows,
        history: History,
    ) -> None:
        self._patterns = patterns
        self._bias = bias
        self._suppress = suppress
        self._rows = rows
        self._history = history

    def apply_bias(self, logits: torch.Tensor) -> None:
        """Add to every token that advances or completes a biased text, in place."""
        if self._bias is not None:
            self._apply(logits, self._bias)

    def apply_suppress(self, logits: torch.Tensor) -> None:
        """Set every token that would complete a suppressed text to -inf, in place."""
        if self._suppress is not None:
            self._apply(logits, self._suppress)

    def _apply(self, logits: torch.Tensor, table: EntryTable) -> None:
        assert self._patterns is not None, "text patterns need a vocabulary"
        pool, tokens = self._patterns
        rows, history = self._rows, self._history
        patterns, adds, active = table.at(rows.slots, rows.positions)
        patterns = torch.where(active, patterns, -1)
        count, entries = patterns.shape
        states = torch.empty((count, entries), dtype=torch.int32, device=logits.device)
        _walk_kernel[(count, entries)](
            states,
            patterns,
            entries,
            rows.step_rows,
            rows.slots,
            rows.last,
            rows.positions,
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
        vocab = logits.shape[1]
        block = block_of(vocab, logits.device, _BLOCK)
        _apply_kernel[(count, triton.cdiv(vocab, block))](
            logits,
            logits.stride(0),
            vocab,
            states,
            adds,
            entries,
            pool.masks,
            pool.masks.stride(0),
            BLOCK=block,
        )
