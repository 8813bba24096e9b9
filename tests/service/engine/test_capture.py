"""Rows as they are measured: values on paper, and every column where it is promised."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
import torch

from logit_processors.row_spec import DENSE, STATISTICS, PlainLogprobs, RowSpec
from service.engine.capture import Stages, measure_rows, plain_logprobs
from service.engine.rows import RowGroup
from tests.entries import spec_of
from tests.unit_support import INF

# Probabilities 1/8, 1/8, 1/4, 1/2, whatever is added to all logits of a row.
BASE = torch.tensor([[1.0, 1.0, 2.0, 4.0], [4.0, 2.0, 1.0, 1.0]]).log() + 7.0
# Without the likeliest token: 1/4, 1/4, 1/2, 0.
CONTROLLED = BASE.clone()
CONTROLLED[0, 3] = CONTROLLED[1, 0] = -INF
SAMPLED = torch.tensor([2, 1])
ALIVE = torch.tensor([1.0, 1.0])
REQUESTS = np.array([5, 2])
BASE_ENTROPY = 1.75 * log(2)
CONTROLLED_ENTROPY = 1.5 * log(2)


def measured(spec: RowSpec, controlled: torch.Tensor = CONTROLLED) -> RowGroup:
    return measure_rows(spec, Stages(BASE, controlled), SAMPLED, ALIVE, REQUESTS)


def column(group: RowGroup, name: str) -> list[float]:
    values: list[float] = group.statistics[:, STATISTICS.index(name)].tolist()
    return values


def test_statistics_of_both_stages_on_paper() -> None:
    group = measured(spec_of(0, base=True, controlled=True))
    assert group.requests.tolist() == [5, 2]
    assert group.statistics.dtype == torch.float32
    assert column(group, "alive") == [1.0, 1.0]
    assert column(group, "base_logprob") == pytest.approx([log(0.25)] * 2)
    assert column(group, "controlled_logprob") == pytest.approx([log(0.5)] * 2)
    assert column(group, "base_rank") == [2.0, 2.0]
    assert column(group, "controlled_rank") == [1.0, 1.0]
    assert column(group, "base_entropy") == pytest.approx([BASE_ENTROPY] * 2)
    assert column(group, "controlled_entropy") == pytest.approx([CONTROLLED_ENTROPY] * 2)
    assert column(group, "kl") == pytest.approx([log(2)] * 2)
    assert group.token_ids.shape == group.logprobs.shape == (2, 2, 0)


def test_top_k_of_both_stages() -> None:
    group = measured(spec_of(2, base=True, controlled=True))
    assert group.token_ids.dtype == torch.int32
    assert group.token_ids[:, 0].tolist() == [[3, 2], [0, 1]]
    assert group.token_ids[:, 1, 0].tolist() == [2, 1]
    expected = [[[0.5, 0.25], [0.5, 0.25]]] * 2
    np.testing.assert_allclose(group.logprobs.exp(), expected, rtol=1e-6)


def test_dense_rows_hold_every_token_in_order() -> None:
    group = measured(spec_of(DENSE, base=True, controlled=True))
    assert group.token_ids.shape == (2, 2, 0)
    expected = [
        [[0.125, 0.125, 0.25, 0.5], [0.25, 0.25, 0.5, 0.0]],
        [[0.5, 0.25, 0.125, 0.125], [0.0, 0.5, 0.25, 0.25]],
    ]
    np.testing.assert_allclose(group.logprobs.exp(), expected, rtol=1e-6)
    assert group.logprobs[0, 1, 3].item() == -INF


@pytest.mark.parametrize("top_k", [0, 1, 3, DENSE])
def test_without_a_program_both_stages_are_the_same(top_k: int) -> None:
    same = measured(spec_of(top_k, base=True, controlled=True), BASE)
    assert torch.equal(same.logprobs[:, 0], same.logprobs[:, 1])
    assert torch.equal(same.token_ids[:, 0], same.token_ids[:, 1])
    for name in ("logprob", "rank", "entropy"):
        assert column(same, f"base_{name}") == column(same, f"controlled_{name}")
    assert column(same, "kl") == [0.0, 0.0]
    # A program that changes nothing is not told from none.
    assert torch.equal(
        measured(spec_of(top_k, base=True, controlled=True), BASE.clone()).statistics,
        same.statistics,
    )


@pytest.mark.parametrize("stage", ["base", "controlled"])
@pytest.mark.parametrize("top_k", [0, 3, DENSE])
def test_one_stage_is_that_stage_of_both(stage: str, top_k: int) -> None:
    both = measured(spec_of(top_k, base=True, controlled=True))
    one = measured(spec_of(top_k, base=stage == "base", controlled=stage == "controlled"))
    at = ("base", "controlled").index(stage)
    assert torch.equal(one.logprobs[:, 0], both.logprobs[:, at])
    assert torch.equal(one.token_ids[:, 0], both.token_ids[:, at])
    for name in ("logprob", "rank", "entropy"):
        assert column(one, f"{stage}_{name}") == column(both, f"{stage}_{name}")


@pytest.mark.parametrize("top_k", [2, DENSE])
def test_half_precision_is_kept_as_such_and_statistics_are_not(top_k: int) -> None:
    full, half = (measured(spec_of(top_k, True, True, half=h)) for h in (False, True))
    assert half.logprobs.dtype == torch.float16
    assert torch.equal(half.logprobs, full.logprobs.half())
    assert torch.equal(half.token_ids, full.token_ids)
    assert torch.equal(half.statistics, full.statistics)


def test_a_row_that_keeps_nothing_tells_whether_a_token_was_left() -> None:
    group = measure_rows(spec_of(), None, SAMPLED, torch.tensor([0.0, 1.0]), REQUESTS)
    assert column(group, "alive") == [0.0, 1.0]
    assert group.logprobs.shape == (2, 0, 0)
    group.to_cpu()


@pytest.mark.parametrize("spec", [spec_of(2, True, True), spec_of(DENSE, True, True)])
def test_logits_are_left_as_they_were(spec: RowSpec) -> None:
    base, controlled = BASE.clone(), CONTROLLED.clone()
    measure_rows(spec, Stages(base, controlled), SAMPLED, ALIVE, REQUESTS)
    assert torch.equal(base, BASE)
    assert torch.equal(controlled, CONTROLLED)


@pytest.mark.parametrize("vocab", [4, 5000])
def test_a_row_that_lost_every_token_takes_no_other_with_it(vocab: int) -> None:
    # Only its own request may end; an error raised here would end the engine.
    base = torch.arange(2 * vocab).reshape(2, vocab).float() / vocab
    controlled = base.index_fill(0, torch.tensor([0]), -INF)
    spec, alive = spec_of(3, base=True, controlled=True), torch.tensor([0.0, 1.0])
    group = measure_rows(spec, Stages(base, controlled), SAMPLED, alive, REQUESTS)
    assert column(group, "alive") == [0.0, 1.0]
    alone = measure_rows(
        spec, Stages(base[1:], controlled[1:].clone()), SAMPLED[1:], alive[1:], REQUESTS[1:]
    )
    assert torch.equal(group.statistics[1:], alone.statistics)
    assert torch.equal(group.logprobs[1:], alone.logprobs)


def test_plain_logprobs_are_the_sampled_token_and_the_likeliest() -> None:
    group = plain_logprobs(PlainLogprobs(2), BASE, SAMPLED, REQUESTS)
    assert group.token_ids.tolist() == [[2, 3, 2], [1, 0, 1]]
    assert group.token_ids.dtype == torch.int32
    np.testing.assert_allclose(group.logprobs.exp(), [[0.25, 0.5, 0.25]] * 2, rtol=1e-6)
    assert group.statistics.tolist() == [2, 2]


def test_plain_ranks_count_tied_tokens_as_the_engine_does() -> None:
    group = plain_logprobs(PlainLogprobs(1), BASE, torch.tensor([0, 3]), REQUESTS)
    assert group.statistics.tolist() == [4, 4]


def test_plain_logprobs_of_the_whole_vocabulary() -> None:
    group = plain_logprobs(PlainLogprobs(DENSE), BASE, SAMPLED, REQUESTS)
    assert group.token_ids.shape == (2, 5)
    assert sorted(group.token_ids[0, 1:].tolist()) == [0, 1, 2, 3]


def test_plain_logprobs_of_named_tokens() -> None:
    group = plain_logprobs(PlainLogprobs(0, (3, 0)), BASE, SAMPLED, REQUESTS)
    assert group.token_ids.tolist() == [[2, 3, 0], [1, 3, 0]]
    np.testing.assert_allclose(
        group.logprobs.exp(), [[0.25, 0.5, 0.125], [0.25, 0.125, 0.5]], rtol=1e-6
    )


def test_plain_logprobs_of_the_sampled_token_alone() -> None:
    # logprobs=0: no alternatives, the sampled token only.
    group = plain_logprobs(PlainLogprobs(0), BASE, SAMPLED, REQUESTS)
    assert group.token_ids.tolist() == [[2], [1]]
    np.testing.assert_allclose(group.logprobs.exp(), [[0.25], [0.25]], rtol=1e-6)
