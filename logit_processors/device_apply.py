"""Control programs on a device: one kernel for whole rows, one for the tokens they name.

Steering touches every token of a row: its kernel reads the row once and each direction
once, and writes the row once. Biases and suppressions touch a few tokens: their kernel reads
and writes only those. Every program looks up its slot's entries by itself, so no
``[rows, entries]`` tensor is made, and rows without entries cost nothing.
"""

from __future__ import annotations

import torch
from vllm.triton_utils import tl, triton

from logit_processors.blocks import block_of
from logit_processors.slot_lists import EntryTable

_BLOCK = 1024
_LANES = 64


@triton.jit(do_not_specialize=["width"])
def _steer_kernel(  # type: ignore[no-untyped-def]
    logits,  # [rows, vocab], any float
    logits_stride,
    out,  # [rows, vocab] float32
    out_stride,
    vocab,
    slots,  # [rows]
    positions,  # [rows]
    counts,  # [slots] int32
    ids,  # [slots, width] int64: rows of the directions
    strengths,  # [slots, width] float32
    windows,  # [slots, width, 2] int32
    width,
    directions,  # [vectors, vocab] float32
    directions_stride,
    IN_PLACE: tl.constexpr,  # noqa: N803 - Triton's way to name constants
    BLOCK: tl.constexpr,  # noqa: N803
):
    row = tl.program_id(0).to(tl.int64)
    token = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = token < vocab
    slot = tl.load(slots + row).to(tl.int64)
    position = tl.load(positions + row)
    count = tl.load(counts + slot)
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    steered = 0
    number = 0
    while number < count:
        entry = slot * width + number
        strength = tl.load(strengths + entry)
        after = position >= tl.load(windows + 2 * entry)
        before = position < tl.load(windows + 2 * entry + 1)
        if (strength != 0.0) & after & before:
            direction = directions + tl.load(ids + entry) * directions_stride
            total += strength * tl.load(direction + token, mask=inside, other=0.0)
            steered = 1
        number += 1
    if (steered == 0) & IN_PLACE:
        return
    values = tl.load(logits + row * logits_stride + token, mask=inside, other=0.0)
    tl.store(out + row * out_stride + token, values.to(tl.float32) + total, mask=inside)


@triton.jit(do_not_specialize=["width"])
def _edit_kernel(  # type: ignore[no-untyped-def]
    logits,  # [rows, vocab] float32, changed in place
    logits_stride,
    slots,  # [rows]
    positions,  # [rows]
    counts,  # [slots] int32
    ids,  # [slots, width] int64: tokens
    adds,  # [slots, width] float32; -inf suppresses
    windows,  # [slots, width, 2] int32
    width,
    LANES: tl.constexpr,  # noqa: N803
):
    row = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + row).to(tl.int64)
    position = tl.load(positions + row)
    number = tl.program_id(1) * LANES + tl.arange(0, LANES)
    listed = number < tl.load(counts + slot)
    entry = slot * width + number
    after = position >= tl.load(windows + 2 * entry, mask=listed, other=0)
    before = position < tl.load(windows + 2 * entry + 1, mask=listed, other=0)
    active = after & before  # padding has a stop of 0 and is never active
    add = tl.load(adds + entry, mask=active, other=0.0)
    where = logits + row * logits_stride + tl.load(ids + entry, mask=active, other=0)
    values = tl.load(where, mask=active, other=0.0)
    # Set, not added: +inf plus -inf is NaN.
    suppressed = add == float("-inf")
    values = tl.where(suppressed, add, values + tl.where(suppressed, 0.0, add))
    tl.store(where, values, mask=active)


@triton.jit(do_not_specialize=["width"])
def _force_kernel(  # type: ignore[no-untyped-def]
    logits,  # [rows, vocab] float32, changed in place
    logits_stride,
    vocab,
    slots,  # [rows]
    positions,  # [rows]
    counts,  # [slots] int32
    ids,  # [slots, width] int32: tokens
    width,
    BLOCK: tl.constexpr,  # noqa: N803
):
    row = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + row).to(tl.int64)
    position = tl.load(positions + row)
    if (position < 0) | (position >= tl.load(counts + slot)):
        return
    forced = tl.load(ids + slot * width + position)
    token = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    others = (token < vocab) & (token != forced)
    tl.store(logits + row * logits_stride + token, float("-inf"), mask=others)


def add_directions(
    logits: torch.Tensor,
    out: torch.Tensor,
    steer: EntryTable,
    directions: torch.Tensor,
    slots: torch.Tensor,
    positions: torch.Tensor,
) -> None:
    """Write logits plus the active ``strength * direction`` of their slots.

    Args:
        logits: ``[rows, vocab]`` of any float dtype.
        out: ``[rows, vocab]`` float32; ``logits`` itself to work in place.
        steer: rows of ``directions`` and strengths by slot.
        directions: ``[vectors, vocab]`` float32, standardised.
        slots: ``[rows]`` int.
        positions: ``[rows]`` int, tokens generated before the one being chosen.

    """
    rows, vocab = logits.shape
    block = block_of(vocab, logits.device, _BLOCK)
    _steer_kernel[(rows, triton.cdiv(vocab, block))](
        logits,
        logits.stride(0),
        out,
        out.stride(0),
        vocab,
        slots,
        positions,
        steer.counts,
        steer.ids,
        steer.values,
        steer.windows,
        steer.ids.shape[1],
        directions,
        directions.stride(0),
        IN_PLACE=out is logits,
        BLOCK=block,
    )


def edit_tokens(
    logits: torch.Tensor, edits: EntryTable, slots: torch.Tensor, positions: torch.Tensor
) -> None:
    """Add to the tokens that slots name, or suppress them, in place.

    Lanes run at once and without atomics: of a token's entries with finite values at most one
    may be active at any position. Suppressing a token twice is suppressing it.

    Args:
        logits: ``[rows, vocab]`` float32.
        edits: tokens and adds in nats by slot; -inf suppresses.
        slots: ``[rows]`` int.
        positions: ``[rows]`` int, tokens generated before the one being chosen.

    """
    width = edits.ids.shape[1]
    _edit_kernel[(len(logits), triton.cdiv(width, _LANES))](
        logits,
        logits.stride(0),
        slots,
        positions,
        edits.counts,
        edits.ids,
        edits.values,
        edits.windows,
        width,
        LANES=_LANES,
    )


def force_tokens(
    logits: torch.Tensor,
    ids: torch.Tensor,
    counts: torch.Tensor,
    slots: torch.Tensor,
    positions: torch.Tensor,
) -> None:
    """Set all logits but the forced token's to -inf in rows whose slot forces a token, in place.

    Args:
        logits: ``[rows, vocab]`` float32.
        ids: ``[slots, width]`` int32, the tokens of each slot by position.
        counts: ``[slots]`` int32, the number of tokens of each slot.
        slots: ``[rows]`` int.
        positions: ``[rows]`` int, tokens generated before the one being chosen.

    """
    rows, vocab = logits.shape
    block = block_of(vocab, logits.device, _BLOCK)
    _force_kernel[(rows, triton.cdiv(vocab, block))](
        logits,
        logits.stride(0),
        vocab,
        slots,
        positions,
        counts,
        ids,
        ids.shape[1],
        BLOCK=block,
    )
