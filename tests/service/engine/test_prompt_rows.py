"""Rows of a prompt, measured chunk by chunk, without a model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from vllm import SamplingParams

from logit_processors.row_spec import DENSE, PROMPT_FROM_KEY, PROMPT_KEY, STATISTICS, RowSpec
from logit_processors.wire import WIRE_KEY
from service.engine.prompt_rows import PromptRows, first_row_of, prompt_spec_of
from tests.entries import spec_of

VOCAB, HIDDEN, COUNT = 11, 3, 150
_GENERATOR = torch.Generator().manual_seed(7)
UNEMBEDDING = torch.randn(VOCAB, HIDDEN, generator=_GENERATOR)
STATES = torch.randn(COUNT, HIDDEN, generator=_GENERATOR)
FOLLOWED = torch.randint(VOCAB, (COUNT,), generator=_GENERATOR)
EXPECTED = torch.log_softmax(STATES @ UNEMBEDDING.T, -1)


class Unembedding:
    """Remembers how many rows it was given at once."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        self.rows.append(len(hidden))
        return hidden @ UNEMBEDDING.T


def measured(spec: RowSpec, *chunks: tuple[int, int], start: int = 0) -> tuple[Any, Unembedding]:
    rows, unembedding = PromptRows(spec, COUNT, start), Unembedding()
    for first, end in chunks:
        rows.measure(first, unembedding, STATES[first:end], FOLLOWED[first:end])
    return rows.take(), unembedding


@pytest.mark.parametrize(
    "chunks", [[(0, 150)], [(0, 1), (1, 150)], [(70, 150), (0, 70)], [(0, 90), (0, 90), (90, 150)]]
)
def test_chunks_of_any_kind_give_all_rows(chunks: list[tuple[int, int]]) -> None:
    kept, unembedding = measured(spec_of(DENSE, base=True, controlled=True), *chunks)
    token_ids, logprobs, statistics, *_ = kept
    assert max(unembedding.rows) <= 64
    assert token_ids.shape == (COUNT, 2, 0)
    for stage in range(2):
        torch.testing.assert_close(logprobs[:, stage], EXPECTED)
    own = EXPECTED.gather(1, FOLLOWED[:, None])[:, 0]
    torch.testing.assert_close(statistics[:, STATISTICS.index("base_logprob")], own)
    ranks = (own[:, None] < EXPECTED).sum(1) + 1
    assert statistics[:, STATISTICS.index("controlled_rank")].tolist() == ranks.tolist()
    assert set(statistics[:, STATISTICS.index("alive")].tolist()) == {1.0}


@pytest.mark.parametrize("chunks", [[(0, 150)], [(0, 90), (90, 150)], [(64, 120), (120, 150)]])
def test_rows_that_nobody_wants_are_not_computed(chunks: list[tuple[int, int]]) -> None:
    kept, unembedding = measured(spec_of(DENSE, base=True), *chunks, start=100)
    assert sum(unembedding.rows) == COUNT - 100
    torch.testing.assert_close(kept[1][:, 0], EXPECTED[100:])


def test_what_is_kept_is_as_narrow_as_asked() -> None:
    (token_ids, logprobs, *_), _ = measured(spec_of(2, controlled=True, half=True), (0, COUNT))
    best = EXPECTED.topk(2)
    assert (token_ids.dtype, logprobs.dtype) == (torch.int32, torch.float16)
    assert token_ids[:, 0].tolist() == best.indices.tolist()
    torch.testing.assert_close(logprobs[:, 0].float(), best.values, atol=1e-2, rtol=0)


def test_a_prompt_of_one_token_has_nothing() -> None:
    assert PromptRows(spec_of(1, base=True), 0).take() is None


@pytest.mark.parametrize("extra_args", [None, {}, {WIRE_KEY: {}}, {WIRE_KEY: "text"}])
def test_most_requests_want_none(extra_args: Any) -> None:
    assert prompt_spec_of(SamplingParams(extra_args=extra_args)) is None


def test_a_request_carries_its_spec() -> None:
    spec = spec_of(3, base=True)
    wire: dict[str, dict[str, Any]] = {WIRE_KEY: {PROMPT_KEY: spec.model_dump()}}
    params = SamplingParams(extra_args=wire)
    assert (prompt_spec_of(params), first_row_of(params)) == (spec, 0)
    wire[WIRE_KEY][PROMPT_FROM_KEY] = 4
    assert first_row_of(params) == 4
    with pytest.raises(ValueError, match="RowSpec"):
        prompt_spec_of(SamplingParams(extra_args={WIRE_KEY: {PROMPT_KEY: {"k": 1}}}))
