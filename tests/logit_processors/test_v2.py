"""The V2 adapter's slots, without a kernel: what a runner hands over, on a CPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from logit_processors import v2
from logit_processors.controls import Program, TokenBias, TokenSuppress, Window
from logit_processors.processor import ControlProcessor
from logit_processors.row_spec import ALIVE, BROKEN, EXHAUSTED

SLOTS, VOCAB = 4, 6
PROMPT = 3
ADD_2 = Program(token_bias=(TokenBias(2, 1.5),))
NOTHING_LEFT = Program(token_suppress=tuple(TokenSuppress(token) for token in range(VOCAB)))


def make_processor(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make the adapter as vLLM's V2 loader does, for a model without a tokenizer."""
    monkeypatch.setattr(v2, "load_vocabulary", lambda model_config: None)
    states = SimpleNamespace(
        device=torch.device("cpu"),
        max_num_reqs=SLOTS,
        prompt_len=SimpleNamespace(gpu=torch.full((SLOTS,), PROMPT)),
        all_token_ids=SimpleNamespace(gpu=torch.zeros(SLOTS, 8, dtype=torch.int32)),
    )
    return ControlProcessor(SimpleNamespace(model_config=None), states)


def params(wire: dict[str, Any] | None) -> Any:
    """Return what the adapter reads of ``SamplingParams``."""
    extra = None if wire is None else {"sensefield": {"program": wire}}
    return SimpleNamespace(extra_args=extra, logprob_token_ids=None, num_logprobs=None)


def step(slots: list[int], generated: list[int]) -> Any:
    """Return the context of a step: which slot each row has, and how far it has come."""
    count = len(slots)
    return SimpleNamespace(
        idx_mapping_np=np.array(slots, np.int32),
        expanded_idx_mapping=torch.tensor(slots, dtype=torch.int32),
        pos=torch.tensor(generated) + PROMPT - 1,
        input_ids=torch.zeros(count, dtype=torch.int32),
        expanded_local_pos=torch.zeros(count, dtype=torch.int32),
    )


def test_each_row_gets_the_program_of_its_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = make_processor(monkeypatch)
    assert processor.add_request(3, params(ADD_2.to_wire()))
    assert not processor.add_request(1, params(None))
    logits = processor.apply(torch.zeros(2, VOCAB), step([1, 3], [0, 0]))
    assert logits.tolist() == [[0.0] * VOCAB, [0, 0, 1.5, 0, 0, 0]]
    assert [processor.has_program(row) for row in (0, 1)] == [False, True]


def test_windows_count_generated_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = make_processor(monkeypatch)
    late = Program(token_bias=(TokenBias(0, 1.0, Window(2, 3)),))
    for slot in range(SLOTS):
        processor.add_request(slot, params(late.to_wire()))
    logits = processor.apply(torch.zeros(SLOTS, VOCAB), step([0, 1, 2, 3], [0, 1, 2, 3]))
    assert logits[:, 0].tolist() == [0.0, 0.0, 1.0, 0.0]


def test_a_slot_that_is_given_again_has_nothing_of_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    processor = make_processor(monkeypatch)
    processor.add_request(0, params(NOTHING_LEFT.to_wire()))
    processor.add_request(0, params(ADD_2.to_wire()))
    logits = processor.apply(torch.zeros(1, VOCAB), step([0], [0]))
    assert logits.tolist() == [[0, 0, 1.5, 0, 0, 0]]
    assert processor.alive([0]).tolist() == [ALIVE]


def test_rows_tell_how_their_programs_left_them(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = make_processor(monkeypatch)
    processor.add_request(0, params(NOTHING_LEFT.to_wire()))
    processor.add_request(1, params({"steer": [{"vector": "absent", "strength": 1.0}]}))
    processor.add_request(2, params(ADD_2.to_wire()))
    processor.apply(torch.zeros(3, VOCAB), step([2, 0, 1], [0, 0, 0]))
    assert processor.alive([0, 1, 2]).tolist() == [ALIVE, EXHAUSTED, BROKEN]
    assert processor.alive([2]).tolist() == [BROKEN]


def test_the_layout_looked_at_serves_the_rows_that_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    processor = make_processor(monkeypatch)
    processor.add_request(0, params(ADD_2.to_wire()))
    processor.add_request(3, params(None))
    context = step([3, 0], [4, 1])
    batch = SimpleNamespace(
        **{**vars(context), "input_ids": torch.zeros(9, dtype=torch.int32)},
        logits_indices=torch.tensor([5, 8]),  # the last of each request's tokens
        positions=torch.arange(9),
    )
    processor.look_at(batch)
    assert processor.run_programs(torch.zeros(1, VOCAB), [1]).tolist() == [[0, 0, 1.5, 0, 0, 0]]
    processor.apply(torch.zeros(2, VOCAB), context)
    assert processor.run_programs(torch.zeros(1, VOCAB), [0]).tolist() == [[0.0] * VOCAB]
    # The next step has a layout of its own, also where nothing looked at it before.
    processor.apply(torch.zeros(1, VOCAB), step([0], [2]))
    assert processor.run_programs(torch.zeros(1, VOCAB), [0]).tolist() == [[0, 0, 1.5, 0, 0, 0]]
