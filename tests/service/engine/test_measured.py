"""The ways to measure rows, kernels and a CPU's, against torch's operations and on paper."""

from __future__ import annotations

from collections.abc import Callable
from math import log

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.operations import measure_by_operations
from logit_processors.row_spec import STATISTICS
from service.engine.measured import (
    MeasuredRows,
    measure_by_host,
    measure_by_kernels,
)
from tests.unit_support import CPU, INF, KERNEL_DEVICE

WAYS = (
    pytest.param(
        (measure_by_kernels, KERNEL_DEVICE),
        id="kernels",
        marks=pytest.mark.skipif(KERNEL_DEVICE is None, reason="no Triton here: see test_kernels"),
    ),
    pytest.param((measure_by_host, CPU), id="host"),
)
pytestmark = pytest.mark.parametrize("way", WAYS)
Way = tuple[Callable[..., list[MeasuredRows]], torch.device]
# Around the kernels' block of 2048 tokens, and odd ones.
SIZES = st.sampled_from([1, 2, 3, 7, 33, 2047, 2048, 2049, 5003])
DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])
CONTINUOUS = [at for at, name in enumerate(STATISTICS) if not name.endswith("rank")]
RANKS = [STATISTICS.index("base_rank"), STATISTICS.index("controlled_rank")]


def measured(
    way: Way, stages: dict[str, torch.Tensor], sampled: torch.Tensor
) -> tuple[torch.Tensor, list[MeasuredRows]]:
    """Return statistics ``[rows, 8]`` and rows."""
    by, device = way
    statistics = torch.zeros(len(sampled), len(STATISTICS), device=device)
    stages = {name: logits.to(device) for name, logits in stages.items()}
    return statistics, by(stages, sampled.to(device), statistics)


def by_operations(way: Way) -> Way:
    """Return the reference of a way, on its device."""
    return measure_by_operations, way[1]


def made_rows(vocab: int, rows: int, seed: int, *, ties: bool, masked: float) -> torch.Tensor:
    """Random logits whose first token is never masked; of few values if there are ``ties``."""
    random = np.random.default_rng(seed)
    values = random.normal(7, 4, (rows, vocab))
    if ties:
        values = np.round(values / 4) * 4
    hidden = random.random((rows, vocab)) < masked
    hidden[:, 0] = False
    values[hidden] = -np.inf
    return torch.from_numpy(values.astype(np.float32))


def dense(rows: MeasuredRows, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return all log-probabilities, written into every second row of something larger."""
    out = torch.full((len(rows.values), 2, rows.values.shape[1]), 9.0, dtype=dtype)
    out = out.to(rows.values.device)
    rows.write(out[:, 1])
    assert (out[:, 0] == 9.0).all()
    return out[:, 1]


@settings(max_examples=60)
@given(
    SIZES,
    st.integers(1, 3),
    st.tuples(DTYPES, DTYPES),
    st.integers(0, 99),
    st.booleans(),
    st.sampled_from([0.0, 0.5, 0.999]),
    st.sampled_from(["base", "controlled", "both"]),
)
def test_the_same_as_with_operations(
    way: Way,
    vocab: int,
    rows: int,
    dtypes: tuple[torch.dtype, torch.dtype],
    seed: int,
    ties: bool,
    masked: float,
    which: str,
) -> None:
    base = made_rows(vocab, rows, seed, ties=ties, masked=masked / 2).to(dtypes[0])
    controlled = made_rows(vocab, rows, seed + 1, ties=ties, masked=masked).to(dtypes[1])
    # Control never revives what the base has not.
    controlled = controlled.masked_fill(base == -INF, -INF)
    stages = {"base": base, "controlled": controlled}
    if which != "both":
        stages = {which: stages[which]}
    sampled = torch.from_numpy(np.random.default_rng(seed).integers(0, vocab, rows))
    got, got_rows = measured(way, stages, sampled)
    expected, expected_rows = measured(by_operations(way), stages, sampled)
    torch.testing.assert_close(
        got[:, CONTINUOUS],
        expected[:, CONTINUOUS],
        rtol=1e-4,
        atol=2e-5,
    )
    for name, logits in stages.items():
        chosen = logits.gather(1, sampled.unsqueeze(1))
        ranks = (logits > chosen).sum(dim=1) + 1
        assert got[:, STATISTICS.index(f"{name}_rank")].tolist() == ranks.tolist()
    for ours, theirs in zip(got_rows, expected_rows, strict=True):
        torch.testing.assert_close(dense(ours), dense(theirs), rtol=1e-6, atol=1e-5)
        k = min(vocab, 5)
        values, token_ids = ours.top_k(k)
        torch.testing.assert_close(values, theirs.top_k(k)[0], rtol=1e-6, atol=1e-5)
        assert (values.dtype, token_ids.dtype) == (torch.float32, torch.int32)
        # Kept values are those of the dense row, to the bit.
        assert torch.equal(dense(ours).gather(1, token_ids.long()), values)


def test_statistics_on_paper(way: Way) -> None:
    # Probabilities 1/8, 1/8, 1/4, 1/2; then without the likeliest 1/4, 1/4, 1/2, 0.
    base = torch.tensor([[1.0, 1.0, 2.0, 4.0]]).log() + 7.0
    controlled = base.index_fill(1, torch.tensor([3]), -INF)
    stages = {"base": base, "controlled": controlled}
    statistics, rows = measured(way, stages, torch.tensor([2]))
    found = dict(zip(STATISTICS, statistics[0].tolist(), strict=True))
    assert found == pytest.approx(
        {
            "alive": 0.0,  # not of the measures
            "base_logprob": log(1 / 4),
            "controlled_logprob": log(1 / 2),
            "base_rank": 2.0,
            "controlled_rank": 1.0,
            "base_entropy": 1.75 * log(2),
            "controlled_entropy": 1.5 * log(2),
            "kl": log(2),
        }
    )
    shares = [dense(stage)[0].exp().tolist() for stage in rows]
    assert shares == [pytest.approx([0.125, 0.125, 0.25, 0.5]), pytest.approx([0.25, 0.25, 0.5, 0])]


@pytest.mark.parametrize("vocab", [4, 4500])
@pytest.mark.parametrize("offset", [0.0, -3e4, 1e4])
def test_equal_stages_have_a_divergence_of_exactly_0(way: Way, vocab: int, offset: float) -> None:
    base = made_rows(vocab, 3, 5, ties=False, masked=0.2) + offset
    statistics, _ = measured(
        way, {"base": base, "controlled": base.clone()}, torch.tensor([0, 1, 2])
    )
    assert statistics[:, STATISTICS.index("kl")].tolist() == [0.0, 0.0, 0.0]
    for name in ("logprob", "rank", "entropy"):
        pair = [statistics[:, STATISTICS.index(f"{s}_{name}")] for s in ("base", "controlled")]
        assert torch.equal(*pair)


def test_a_certain_token_has_no_entropy_and_equal_ones_the_most(way: Way) -> None:
    certain = torch.full((1, 5000), -INF)
    certain[0, 4999] = -2.0
    rows = torch.cat((certain, torch.zeros(1, 5000), certain.clamp(min=-3e38)))
    statistics, _ = measured(way, {"base": rows}, torch.tensor([4999, 17, 4999]))
    entropy = statistics[:, STATISTICS.index("base_entropy")].tolist()
    assert entropy == pytest.approx([0.0, log(5000), 0.0], rel=1e-5)
    assert entropy[0] == entropy[2] == 0.0
    assert statistics[:, STATISTICS.index("base_rank")].tolist() == [1.0, 1.0, 1.0]
    assert statistics[0, STATISTICS.index("base_logprob")].item() == 0.0


@pytest.mark.parametrize("vocab", [4, 4500])
def test_a_row_that_lost_every_token_is_nan_alone(way: Way, vocab: int) -> None:
    base = made_rows(vocab, 3, 8, ties=False, masked=0.0)
    controlled = base.index_fill(0, torch.tensor([1]), -INF)
    sampled = torch.tensor([1, 2, 3])
    stages = {"base": base, "controlled": controlled}
    statistics, rows = measured(way, stages, sampled)
    reference, _ = measured(by_operations(way), stages, sampled)
    lost = [STATISTICS.index(name) for name in ("controlled_logprob", "controlled_entropy", "kl")]
    assert statistics[1, lost].isnan().all()
    assert reference[1, lost].isnan().all()
    assert statistics[1, STATISTICS.index("controlled_rank")].item() == 1.0
    assert torch.isfinite(statistics[[0, 2]]).all()
    assert torch.isfinite(statistics[1, [STATISTICS.index("base_entropy"), RANKS[0]]]).all()
    assert dense(rows[1])[1].isnan().all()
    assert torch.isfinite(dense(rows[1])[[0, 2]]).all()


def test_rows_need_not_lie_side_by_side(way: Way) -> None:
    wide = made_rows(3000, 6, 9, ties=True, masked=0.1)
    narrow = wide[::2, :2500]
    sampled = torch.tensor([5, 2400, 0])
    scattered, _ = measured(way, {"base": narrow}, sampled)
    packed, _ = measured(way, {"base": narrow.contiguous()}, sampled)
    assert torch.equal(scattered, packed)


def test_half_precision_is_that_of_full(way: Way) -> None:
    _, (rows,) = measured(
        way, {"base": made_rows(2500, 2, 10, ties=False, masked=0.3)}, torch.tensor([1, 2])
    )
    assert torch.equal(dense(rows, torch.float16), dense(rows).half())
