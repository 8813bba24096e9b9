"""Text patterns on the device against the same patterns on the host."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsProcRequestState

from logit_processors import v2
from logit_processors.control import between
from logit_processors.processor import ControlProcessor
from logit_processors.program import Program
from logit_processors.vocabulary import Vocabulary
from tests.entries import bias_text, program_of, suppress_text
from tests.unit_support import INF, KERNEL_DEVICE, run_programs
from tests.vllm_objects import (
    context_of,
    input_batch,
    program_wire,
    request_state,
    sampling_params,
    vllm_config,
)

pytestmark = pytest.mark.skipif(KERNEL_DEVICE is None, reason="no Triton here: see test_kernels")
PROMPT = [3, 0]
# More than one block of 1024 tokens; in the second one only " ab" is of any interest.
TOKENS = [b"a", b"b", b"ab", b" ", *(b"x%d" % number for number in range(1200)), b" ab", b"y"]
VOCABULARY = Vocabulary(TOKENS)
TOKEN_IDS = st.integers(0, 3) | st.just(len(TOKENS) - 2)
TEXTS = st.text("ab ", min_size=1, max_size=3)
WINDOWS = st.just(between()) | st.builds(between, st.integers(0, 2), st.none() | st.integers(3, 4))
AMOUNTS = st.integers(-40, 40).map(lambda n: n / 4)
PROGRAMS = st.builds(
    program_of,
    text_bias=st.lists(
        st.builds(bias_text, TEXTS, AMOUNTS, st.booleans(), WINDOWS), max_size=3
    ).map(tuple),
    text_suppress=st.lists(st.builds(suppress_text, TEXTS, st.booleans(), WINDOWS), max_size=3).map(
        tuple
    ),
)


def on_device(
    programs: list[Program], logits: torch.Tensor, outputs: list[list[int]]
) -> torch.Tensor:
    """Apply one program a row, as the V2 adapter does, in one step."""
    count = len(programs)
    committed = torch.zeros(count, 16, dtype=torch.int32)
    for slot, output in enumerate(outputs):
        tokens = torch.tensor(PROMPT + output)
        committed[slot, : len(tokens)] = tokens
    assert KERNEL_DEVICE is not None
    state = request_state(count, len(PROMPT), 16, KERNEL_DEVICE)
    state.all_token_ids.gpu.copy_(committed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(v2, "load_vocabulary", lambda model_config: VOCABULARY)
        patch.setattr(v2, "warm_up", lambda model_config, pipeline: None)
        states = LogitsProcRequestState.from_request_state(state)
        processor: Any = ControlProcessor(vllm_config(count), states)
    for slot, program in enumerate(programs):
        processor.add_request(slot, sampling_params(program_wire(program, VOCABULARY)))
    last = [len(PROMPT) + len(output) - 1 for output in outputs]
    step = input_batch(range(count), last, device=KERNEL_DEVICE)
    step.input_ids.copy_(committed[torch.arange(count), torch.tensor(last)])
    processor.look_at(step)
    result: torch.Tensor = processor.apply(logits.to(KERNEL_DEVICE, copy=True), context_of(step))
    return result.cpu()


@settings(max_examples=40)
@given(
    st.lists(st.tuples(PROGRAMS, st.lists(TOKEN_IDS, max_size=6)), min_size=1, max_size=3),
)
def test_the_same_as_on_the_host(requests: list[tuple[Program, list[int]]]) -> None:
    programs = [program for program, _ in requests]
    outputs = [output for _, output in requests]
    logits = torch.arange(len(requests) * len(TOKENS)).reshape(len(requests), -1) / 8
    logits[:, 3] = -INF  # as a grammar masks it
    got = on_device(programs, logits, outputs)
    assert torch.equal(got, run_programs(programs, logits, outputs, VOCABULARY))


def test_a_suppressed_text_wins_over_its_bias_in_every_block() -> None:
    program = program_of(text_bias=(bias_text("ab", 2.0),), text_suppress=(suppress_text(" ab"),))
    row = on_device([program], torch.zeros(1, len(TOKENS)), [[0, 3]])[0]
    expected = torch.zeros(len(TOKENS))
    expected[[0, 2]] = 2.0
    expected[[2, len(TOKENS) - 2]] = -INF
    assert torch.equal(row, expected)
