"""Rows on their way out of V2's samplers, on paper: a batch, what it drew, what is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from vllm.v1.worker.gpu.input_batch import InputBatch
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsProcRequestState
from vllm.v1.worker.gpu.sample.output import SamplerOutput

from logit_processors import v2
from logit_processors.control import between
from logit_processors.places import Layout
from logit_processors.processor import ControlProcessor
from logit_processors.row_spec import ALIVE, BROKEN, DENSE, EXHAUSTED, STATISTICS
from service.engine.capture import Kept
from service.engine.samplers import drawn_tokens, raw_rows, sample
from tests.entries import bias_token, program_of, spec_of, suppress_token
from tests.unit_support import CPU
from tests.vllm_objects import (
    context_of,
    input_batch,
    request_state,
    sampling_params,
    v2_sampler,
    vllm_config,
)

SLOTS, VOCAB, DRAFTS, PROMPT = 8, 5, 2, 3
GARBAGE = 1 << 40
STATE = request_state(SLOTS, PROMPT, 16, CPU)
BOTH = spec_of(DENSE, base=True, controlled=True)


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The adapter as vLLM's V2 loader makes it, for a model without a tokenizer."""
    monkeypatch.setattr(v2, "load_vocabulary", lambda model_config: None)
    states = LogitsProcRequestState.from_request_state(STATE)
    return ControlProcessor(vllm_config(SLOTS), states)


def add(
    processor: Any, slot: int, wire: dict[str, Any] | None, logprobs: int | None = None
) -> None:
    processor.add_request(slot, sampling_params(wire, logprobs=logprobs))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("requests", [[0, 1, 2], [2, 0, 1], [2, 0], [1]])
def test_raw_rows_stay_when_v1_samples(dtype: torch.dtype, requests: list[int]) -> None:
    logits = torch.arange(12).reshape(3, 4).to(dtype)
    kept = Kept.of(dict.fromkeys(requests, BOTH), Layout(CPU))
    rows = raw_rows(logits, kept)
    logits.float().div_(7)  # what V1 does: in place only on float32
    assert rows.dtype == torch.float32
    assert rows.tolist() == [[4.0 * at + column for column in range(4)] for at in requests]


def batch(
    slots: Sequence[int], generated: Sequence[int], drafts: Sequence[int] | None
) -> InputBatch:
    """Return the input batch of requests at positions, with or without drafted tokens."""
    return input_batch(slots, [number + PROMPT - 1 for number in generated], drafts)


def drew(layout: InputBatch, drawn: list[list[int]]) -> SamplerOutput:
    """Return the output of vLLM's sampler for a step in which the requests drew these tokens."""
    width = 1 if layout.num_draft_tokens_per_req is None else DRAFTS + 1
    # What stands behind the tokens drawn is whatever was in memory.
    padded = [[*tokens, *[GARBAGE] * (width - len(tokens))] for tokens in drawn]
    counts = torch.tensor([len(tokens) for tokens in drawn], dtype=torch.int32)
    return SamplerOutput(torch.tensor(padded), None, None, counts, torch.zeros_like(counts))


def sampled(
    processor: Any, layout: InputBatch, logits: torch.Tensor, drawn: list[list[int]]
) -> SamplerOutput:
    """Sample a step in which the requests drew these tokens."""
    for slot in range(SLOTS):
        STATE.index_to_req_id[slot] = str(slot)

    def stock() -> SamplerOutput:
        processor.apply(logits.float().clone(), context_of(layout))
        return drew(layout, drawn)

    sampler = v2_sampler(STATE, VOCAB, processor)
    output: SamplerOutput = sample(sampler, logits, layout, stock)
    return output


def column(rows: Any, name: str) -> list[float]:
    values: list[float] = rows.sampled_token_ranks[:, STATISTICS.index(name)].tolist()
    return values


def logits_of(rows: int) -> torch.Tensor:
    return torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(rows))


def test_every_row_with_a_token_tells_it_and_the_others_tell_none() -> None:
    layout = batch([4, 0, 2], [0, 0, 0], [2, 0, 1])
    output = drew(layout, [[3, 1], [4], [2, 0]])
    assert drawn_tokens(output, layout).tolist() == [3, 1, 0, 4, 2, 0]
    # A request amid its prompt draws no token.
    output.num_sampled[1] = 0
    assert drawn_tokens(output, layout).tolist() == [3, 1, 0, 0, 2, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_accepted_tokens_have_their_rows_in_their_order(processor: Any, dtype: torch.dtype) -> None:
    late = program_of(token_bias=(bias_token(1, 2.0, between(5)),))
    add(processor, 6, {"program": late.to_wire(), "rows": BOTH.model_dump()})
    add(processor, 1, None)
    add(processor, 3, {"rows": spec_of(1, base=True).model_dump()})
    layout = batch([3, 1, 6], [0, 9, 4], [1, 2, 2])
    logits = logits_of(8).to(dtype)
    before = logits.clone()
    drawn = [[2, 4], [0, 0, 0], [3, 1]]  # the last of the three rejects its second draft
    rows = sampled(processor, layout, logits, drawn).logprobs_tensors.tolists()
    assert torch.equal(logits, before)

    base = torch.log_softmax(before.float(), -1)
    narrow = rows.slice_request(0, 2)
    assert column(narrow, "base_logprob") == pytest.approx([base[0, 2].item(), base[1, 4].item()])
    assert narrow.logprob_token_ids[:, 0, 0].tolist() == base[:2].argmax(-1).tolist()

    wide = rows.slice_request(2, 2)
    raised = before[5:7].float()
    raised[1, 1] += 2.0  # at position 5, not at 4
    controlled = torch.log_softmax(raised, -1)
    np.testing.assert_allclose(wide.logprobs[:, 0], base[5:7], atol=1e-6)
    np.testing.assert_allclose(wide.logprobs[:, 1], controlled, atol=1e-6)
    chosen = [controlled[0, 3].item(), controlled[1, 1].item()]
    assert column(wide, "controlled_logprob") == pytest.approx(chosen, abs=1e-6)
    assert column(wide, "kl")[0] == 0.0
    assert column(wide, "kl")[1] > 0.0
    assert column(wide, "alive") == [ALIVE, ALIVE]
    with pytest.raises(KeyError):
        rows.slice_request(1, 3)


def test_a_row_is_the_same_with_and_without_drafts(processor: Any) -> None:
    program = program_of(token_bias=(bias_token(1, 2.0, between(1)),))
    for slot in range(3):
        add(processor, slot, {"program": program.to_wire(), "rows": BOTH.model_dump()})
    logits = logits_of(9)
    drafted = sampled(
        processor, batch([0, 1, 2], [0, 0, 0], [2, 2, 2]), logits, [[1, 2, 3]] * 3
    ).logprobs_tensors.tolists()
    for place in range(3):
        alone = sampled(
            processor, batch([0, 1, 2], [place] * 3, None), logits[place::3], [[place + 1]] * 3
        ).logprobs_tensors.tolists()
        for request in range(3):
            one, all_of_them = alone.slice_request(request, 1), drafted.slice_request(request, 3)
            assert np.array_equal(one.logprobs[0], all_of_them.logprobs[place])
            assert np.array_equal(
                one.sampled_token_ranks[0], all_of_them.sampled_token_ranks[place]
            )


def test_who_has_no_token_left_and_who_lacks_a_vector_ends_alone(processor: Any) -> None:
    late = tuple(suppress_token(token, between(1)) for token in range(VOCAB))
    status = spec_of().model_dump()
    add(processor, 0, {"program": program_of(token_suppress=late).to_wire(), "rows": status})
    missing = {"steer_logits": [{"vector": "absent", "strength": 1.0}]}
    add(processor, 1, {"program": missing, "rows": status})
    add(
        processor,
        2,
        {"program": program_of(token_bias=(bias_token(1, 2.0),)).to_wire()},
        logprobs=1,
    )
    layout = batch([0, 1, 2], [0, 0, 0], [2, 2, 1])
    output = sampled(processor, layout, logits_of(8), [[1, 0], [0], [2, 1]])
    rows = output.logprobs_tensors.tolists()
    assert column(rows.slice_request(0, 2), "alive") == [ALIVE, EXHAUSTED]
    # The row that has no token left is only of a draft: had it been rejected, all is well.
    assert column(rows.slice_request(0, 1), "alive") == [ALIVE]
    assert column(rows.slice_request(1, 1), "alive") == [BROKEN]
    plain = rows.slice_request(2, 2)
    assert plain.logprob_token_ids.shape == plain.logprobs.shape == (2, 2)
    assert plain.logprob_token_ids[:, 0].tolist() == [2, 1]


def test_a_step_that_keeps_nothing_is_left_to_the_engine(processor: Any) -> None:
    add(processor, 0, None)
    output = sampled(processor, batch([0], [0], [1]), logits_of(2), [[1, 2]])
    assert output.logprobs_tensors is None
