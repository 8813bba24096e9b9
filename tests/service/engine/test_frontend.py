"""The API process's end of the rows: one kept row for each token, handed over once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.engine.logprobs import LogprobsProcessor
from vllm.v1.outputs import LogprobsLists, LogprobsTensors

from logit_processors.row_spec import PROMPT_KEY
from logit_processors.wire import WIRE_KEY
from service.engine.frontend import HandedOver, RowsProcessor
from tests.entries import spec_of
from tests.unit_support import token_row
from tests.vllm_objects import engine_request

ROWS = {WIRE_KEY: {"rows": spec_of(2, base=True).model_dump()}}


PROMPT = {WIRE_KEY: {PROMPT_KEY: spec_of(2, base=True).model_dump()}}


def processor(kind: RequestOutputKind, extra_args: dict[str, Any] | None) -> LogprobsProcessor:
    params = SamplingParams(
        logprobs=0, prompt_logprobs=None, output_kind=kind, extra_args=extra_args
    )
    return RowsProcessor.from_new_request(None, engine_request(params))


def arrived(first: int, count: int) -> LogprobsLists:
    """Rows as they come from the engine: views into one message."""
    numbers = np.arange(first, first + count)
    token_ids = np.repeat(numbers, 2).reshape(count, 1, 2).astype(np.int32)
    statistics = np.repeat(numbers, 8).reshape(count, 8).astype(np.float32)
    return LogprobsLists(token_ids, -token_ids.astype(np.float32), statistics)


@pytest.mark.parametrize(
    "extra_args", [None, {}, {"theirs": 1}, {WIRE_KEY: {"program": {}}}, {WIRE_KEY: "text"}]
)
def test_a_request_that_keeps_no_rows_is_vllms(extra_args: dict[str, Any] | None) -> None:
    assert type(processor(RequestOutputKind.DELTA, extra_args)) is LogprobsProcessor


def test_a_stream_hands_its_rows_over() -> None:
    stream = processor(RequestOutputKind.DELTA, ROWS)
    assert isinstance(stream.logprobs, HandedOver)
    for step in range(3):
        stream._update_sample_logprobs(arrived(10 * step, 2))
        sent: Any = stream.logprobs[-2:]
        assert [row.statistics[0] for row in sent] == [10 * step, 10 * step + 1]
        assert len(stream.logprobs) == 0


def test_a_whole_answer_keeps_all_rows() -> None:
    whole = processor(RequestOutputKind.FINAL_ONLY, ROWS)
    assert type(whole.logprobs) is list
    for step in range(3):
        whole._update_sample_logprobs(arrived(step, 1))
    kept: Any = whole.logprobs
    assert [row.token_ids.tolist() for row in kept] == [[[0, 0]], [[1, 1]], [[2, 2]]]
    assert kept[2].logprobs.tolist() == [[-2.0, -2.0]]


def test_rows_do_not_keep_the_message_that_brought_them() -> None:
    whole = processor(RequestOutputKind.FINAL_ONLY, ROWS)
    message = arrived(0, 2)
    whole._update_sample_logprobs(message)
    kept: Any = whole.logprobs
    for array in (message.logprob_token_ids, message.logprobs, message.sampled_token_ranks):
        array.fill(99)
    assert [row.statistics[0] for row in kept] == [0.0, 1.0]
    assert all(part.base is None for row in kept for part in row)


def test_reading_one_row_hands_nothing_over() -> None:
    rows = HandedOver(token_row([[float(at)]]) for at in range(4))
    assert rows[-1].logprobs.tolist() == [[3.0]]
    assert len(rows) == 4
    # vLLM reads the rows of the last tokens, and what came before them has been sent.
    assert [row.logprobs[0, 0] for row in rows[-2:]] == [2.0, 3.0]
    assert len(rows) == 0


def test_rows_of_a_prompt_are_handed_over_once() -> None:
    params = SamplingParams(
        prompt_logprobs=1, output_kind=RequestOutputKind.DELTA, extra_args=PROMPT
    )
    made = RowsProcessor.from_new_request(None, engine_request(params))
    token_ids = torch.arange(6, dtype=torch.int32).reshape(3, 1, 2)
    made._update_prompt_logprobs(LogprobsTensors(token_ids, -token_ids.float(), torch.zeros(3, 8)))
    told: Any = made.pop_prompt_logprobs()
    assert [row.token_ids.tolist() for row in told] == [[[0, 1]], [[2, 3]], [[4, 5]]]
    assert [row.logprobs.tolist() for row in told] == [[[0, -1]], [[-2, -3]], [[-4, -5]]]
    assert made.pop_prompt_logprobs() == []


def test_the_engines_own_logprobs_beside_rows_of_the_prompt_are_the_engines() -> None:
    params = SamplingParams(logprobs=1, prompt_logprobs=1, extra_args=PROMPT)
    made = RowsProcessor.from_new_request(None, engine_request(params))
    ids = np.array([[5, 5]], np.int32)
    made._update_sample_logprobs(LogprobsLists(ids, np.array([[-0.5, -0.5]]), np.array([1])))
    told: Any = made.logprobs
    assert told[0][5].logprob == -0.5
