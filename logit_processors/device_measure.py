"""Statistics of rows of logits on a device, in one pass over the rows of both stages.

Every program sums up one block of one row, relative to the block's own largest logit; a
second, small kernel brings a row's blocks to a common scale. With m the largest logit,
s = sum exp(x - m) and t = sum (x - m) exp(x - m):

    log-softmax(x) = (x - m) - log s        entropy = log s - t / s
    KL(c || b) = sum exp(c - m_c) (c - b) / s_c - (m_c - m_b) - (log s_c - log s_b)

Where the stages agree c - b is 0, so that equal rows have a divergence of exactly 0. A logit of
-inf adds 0 to every sum. A row of -inf only has NaN for all statistics but its ranks, like
log-softmax.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from vllm.triton_utils import tl, triton

from logit_processors.blocks import block_of
from logit_processors.measure import FLOOR
from logit_processors.row_spec import COLUMN

_BLOCK = 2048
# Terms of a block of one stage: m, s, t, the count of tokens above the drawn one, its logit.
_TERMS = 5


@triton.jit
def _sum_stage(parts, blocks, floored, masked, chosen):  # type: ignore[no-untyped-def]
    """Store a block's terms ``blocks`` apart and return exp(x - m), ``[BLOCK]``."""
    peak = tl.max(floored, axis=0)
    shifted = floored - peak
    mass = tl.where(masked, 0.0, tl.exp(shifted))
    above = tl.where(masked, 0.0, (floored > chosen).to(tl.float32))
    tl.store(parts, peak)
    tl.store(parts + blocks, tl.sum(mass, axis=0))
    tl.store(parts + 2 * blocks, tl.sum(mass * shifted, axis=0))
    tl.store(parts + 3 * blocks, tl.sum(above, axis=0))
    tl.store(parts + 4 * blocks, chosen)
    return mass


@triton.jit
def _block_kernel(  # type: ignore[no-untyped-def]
    parts,  # [rows, terms, blocks] float32
    blocks,
    first,  # [rows, vocab], any float
    first_stride,
    second,  # [rows, vocab], any float; controlled, where first is base
    second_stride,
    vocab,
    sampled,  # [rows] int64
    TWO: tl.constexpr,  # noqa: N803 - Triton's way to name constants
    TERMS: tl.constexpr,  # noqa: N803
    FLOOR: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
):
    row = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1)
    token = block * BLOCK + tl.arange(0, BLOCK)
    inside = token < vocab
    drawn = tl.load(sampled + row)
    at = parts + row * (2 * TERMS + 1) * blocks + block

    first += row * first_stride
    values = tl.load(first + token, mask=inside, other=float("-inf")).to(tl.float32)
    masked = values == float("-inf")
    floored = tl.where(masked, FLOOR, values)
    _sum_stage(at, blocks, floored, masked, tl.load(first + drawn).to(tl.float32))
    if TWO:
        second += row * second_stride
        values = tl.load(second + token, mask=inside, other=float("-inf")).to(tl.float32)
        masked = values == float("-inf")
        gained = tl.where(masked, FLOOR, values)
        chosen = tl.load(second + drawn).to(tl.float32)
        mass = _sum_stage(at + TERMS * blocks, blocks, gained, masked, chosen)
        tl.store(at + 2 * TERMS * blocks, tl.sum(mass * (gained - floored), axis=0))


@triton.jit
def _merge_stage(  # type: ignore[no-untyped-def]
    statistics,
    norms,
    parts,
    blocks,
    lane,
    LOGPROB: tl.constexpr,  # noqa: N803 - columns of the statistics
    RANK: tl.constexpr,  # noqa: N803
    ENTROPY: tl.constexpr,  # noqa: N803
    FLOOR: tl.constexpr,  # noqa: N803
):
    """Store a row's statistics and norms; return m, log s and every block's weight, ``[LANES]``.

    The weight makes shares of the row's probability of a block's exp(x - m).
    """
    inside = lane < blocks
    peaks = tl.load(parts + lane, mask=inside, other=FLOOR)
    mass = tl.load(parts + blocks + lane, mask=inside, other=0.0)
    moment = tl.load(parts + 2 * blocks + lane, mask=inside, other=0.0)
    above = tl.load(parts + 3 * blocks + lane, mask=inside, other=0.0)
    peak = tl.max(peaks, axis=0)
    # Bounded, so that a block of weight 0 adds 0 and not 0 times infinity.
    below = tl.maximum(peaks - peak, -10000.0)
    scale = tl.exp(below)
    total = tl.sum(scale * mass, axis=0)
    total = tl.where(total == 0.0, float("nan"), total)
    log_sum = tl.log(total)
    # The largest logit adds 1, so log s is at least 0; a smaller value is a rounding error.
    log_sum = tl.where(log_sum < 0.0, 0.0, log_sum)
    weights = scale / total
    tl.store(statistics + LOGPROB, (tl.load(parts + 4 * blocks) - peak) - log_sum)
    tl.store(statistics + RANK, tl.sum(above, axis=0) + 1.0)
    tl.store(statistics + ENTROPY, log_sum - tl.sum(weights * (moment + below * mass), axis=0))
    tl.store(norms, peak)
    tl.store(norms + 1, log_sum)
    return peak, log_sum, weights


@triton.jit
def _row_kernel(  # type: ignore[no-untyped-def]
    statistics,  # [rows, columns] float32
    statistics_stride,
    norms,  # [rows, 2] float32
    second_norms,  # [rows, 2] float32
    parts,  # [rows, terms, blocks] float32
    blocks,
    TWO: tl.constexpr,  # noqa: N803
    LOGPROB: tl.constexpr,  # noqa: N803 - columns of the base; the controlled one's come next
    RANK: tl.constexpr,  # noqa: N803
    ENTROPY: tl.constexpr,  # noqa: N803
    KL: tl.constexpr,  # noqa: N803
    TERMS: tl.constexpr,  # noqa: N803
    FLOOR: tl.constexpr,  # noqa: N803
    LANES: tl.constexpr,  # noqa: N803
):
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, LANES)
    parts += row * (2 * TERMS + 1) * blocks
    statistics += row * statistics_stride
    norms += 2 * row
    peak, log_sum, _ = _merge_stage(
        statistics, norms, parts, blocks, lane, LOGPROB, RANK, ENTROPY, FLOOR
    )
    if TWO:
        parts += TERMS * blocks
        second_norms += 2 * row
        second_peak, second_log_sum, weights = _merge_stage(
            statistics + 1, second_norms, parts, blocks, lane, LOGPROB, RANK, ENTROPY, FLOOR
        )
        gains = tl.load(parts + TERMS * blocks + lane, mask=lane < blocks, other=0.0)
        moved = (second_peak - peak) + (second_log_sum - log_sum)
        kl = tl.sum(weights * gains, axis=0) - moved
        tl.store(statistics + KL, tl.where(kl < 0.0, 0.0, kl))


@triton.jit
def _logprobs_kernel(  # type: ignore[no-untyped-def]
    logits,  # [rows, vocab], any float
    logits_stride,
    norms,  # [rows, 2] float32
    out,  # [rows, vocab], any float
    out_stride,
    vocab,
    BLOCK: tl.constexpr,  # noqa: N803
):
    row = tl.program_id(0).to(tl.int64)
    token = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = token < vocab
    values = tl.load(logits + row * logits_stride + token, mask=inside, other=0.0)
    peak = tl.load(norms + 2 * row)
    logprobs = (values.to(tl.float32) - peak) - tl.load(norms + 2 * row + 1)
    where = out + row * out_stride + token
    tl.store(where, logprobs.to(out.dtype.element_ty), mask=inside)


@dataclass(frozen=True)
class NormedRows:
    """Logits, ``values`` ``[rows, vocab]``, with the norms of their log-probabilities.

    ``norms`` ``[rows, 2]`` float32: the largest logit and the log of the sum relative to it.
    """

    values: torch.Tensor
    norms: torch.Tensor

    def top_k(self, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the k largest log-probabilities, float32, and their token ids, int32."""
        largest, token_ids = self.values.topk(k, dim=-1)
        return (largest.float() - self.norms[:, :1]) - self.norms[:, 1:], token_ids.int()

    def write(self, out: torch.Tensor) -> None:
        """Write all log-probabilities to ``[rows, vocab]`` of any float dtype."""
        rows, vocab = self.values.shape
        block = block_of(vocab, out.device, _BLOCK)
        _logprobs_kernel[(rows, triton.cdiv(vocab, block))](
            self.values,
            self.values.stride(0),
            self.norms,
            out,
            out.stride(0),
            vocab,
            BLOCK=block,
        )


def measure_one(
    logits: torch.Tensor, sampled: torch.Tensor, statistics: torch.Tensor, stage: str
) -> NormedRows:
    """Measure the rows of one stage.

    Args:
        logits: ``[rows, vocab]`` of any float dtype.
        sampled: ``[rows]`` int64, the token that was drawn.
        statistics: ``[rows, 8]`` float32, see ``STATISTICS``; the stage's columns are filled.
        stage: "base" or "controlled".

    """
    column = COLUMN[f"{stage}_logprob"] - COLUMN["base_logprob"]
    (norms,) = _measure((logits,), sampled, statistics[:, column:])
    return NormedRows(logits, norms)


def measure_two(
    base: torch.Tensor, controlled: torch.Tensor, sampled: torch.Tensor, statistics: torch.Tensor
) -> tuple[NormedRows, NormedRows]:
    """Measure the rows of both stages, and their divergence, in one pass over both.

    Shapes and columns as in :func:`measure_one`.
    """
    norms, controlled_norms = _measure((base, controlled), sampled, statistics)
    return NormedRows(base, norms), NormedRows(controlled, controlled_norms)


def _measure(
    stages: tuple[torch.Tensor, ...], sampled: torch.Tensor, statistics: torch.Tensor
) -> list[torch.Tensor]:
    """Run the kernels; return the norms ``[rows, 2]`` of every stage."""
    first, second = stages[0], stages[-1]
    rows, vocab = first.shape
    block = block_of(vocab, first.device, _BLOCK)
    blocks = triton.cdiv(vocab, block)
    parts = statistics.new_empty(rows, 2 * _TERMS + 1, blocks)
    norms = [statistics.new_empty(rows, 2) for _ in stages]
    two = len(stages) == 2
    _block_kernel[(rows, blocks)](
        parts,
        blocks,
        first,
        first.stride(0),
        second,
        second.stride(0),
        vocab,
        sampled,
        TWO=two,
        TERMS=_TERMS,
        FLOOR=FLOOR,
        BLOCK=block,
    )
    _row_kernel[(rows,)](
        statistics,
        statistics.stride(0),
        norms[0],
        norms[-1],
        parts,
        blocks,
        TWO=two,
        LOGPROB=COLUMN["base_logprob"],
        RANK=COLUMN["base_rank"],
        ENTROPY=COLUMN["base_entropy"],
        KL=COLUMN["kl"],
        TERMS=_TERMS,
        FLOOR=FLOOR,
        LANES=triton.next_power_of_2(blocks),
    )
    return norms
