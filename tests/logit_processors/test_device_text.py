"""Text patterns on the device against the same patterns on the host."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vllm.sampling_params import SamplingParams

from logit_processors import v2
from logit_processors.controls import TextBias, TextSuppress, Window
from logit_processors.processor import ControlProcessor
from logit_processors.program import Program
from logit_processors.vocabulary import Vocabulary
from tests.unit_support import INF, KERNEL_DEVICE, run_programs

pytestmark = pytest.mark.skipif(KERNEL_DEVICE is None, reason="no Triton here: see test_kernels")
PROMPT = [3, 0]
# More than one block of 1024 tokens; in the second one only " ab" is of any interest.
TOKENS = [b"a", b"b", b"ab", b" ", *(b"x%d" % number for number in range(1200)), b" ab", b"y"]
VOCABULARY = Vocabulary(TOKENS)
TOKEN_IDS = st.integers(0, 3) | st.just(len(TOKENS) - 2)
TEXTS = st.text("ab ", min_size=1, max_size=3)
WINDOWS = st.just(Window()) | st.builds(Window, st.integers(0, 2), st.none() | st.integers(3, 4))
AMOUNTS = st.integers(-40, 40).map(lambda n: n / 4)
PROGRAMS = st.builds(
    Program,
    text_bias=st.lists(st.builds(TextBias, TEXTS, AMOUNTS, st.booleans(), WINDOWS), max_size=3).map(
        tuple
    ),
    text_suppress=st.lists(st.builds(TextSuppress, TEXTS, st.booleans(), WINDOWS), max_size=3).map(
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
    states = SimpleNamespace(
        device=KERNEL_DEVICE,
        max_num_reqs=count,
        prompt_len=SimpleNamespace(gpu=torch.full((count,), len(PROMPT), device=KERNEL_DEVICE)),
        all_token_ids=SimpleNamespace(gpu=committed.to(KERNEL_DEVICE)),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(v2, "load_vocabulary", lambda model_config: VOCABULARY)
        patch.setattr(v2, "warm_up", lambda model_config, device: None)
        processor: Any = ControlProcessor(SimpleNamespace(model_config=None), states)
    for slot, program in enumerate(programs):
        wire = {"sensefield": {"program": program.to_wire()}}
        params = SamplingParams(extra_args=wire)
        processor.add_request(slot, params)
    last = torch.tensor([len(PROMPT) + len(output) - 1 for output in outputs])
    step = SimpleNamespace(
        idx_mapping_np=np.arange(count, dtype=np.int32),
        expanded_idx_mapping=torch.arange(count, dtype=torch.int32, device=KERNEL_DEVICE),
        pos=last.to(KERNEL_DEVICE),
        input_ids=committed[torch.arange(count), last].to(KERNEL_DEVICE),
        expanded_local_pos=torch.zeros(count, dtype=torch.int32, device=KERNEL_DEVICE),
    )
    result: torch.Tensor = processor.apply(logits.to(KERNEL_DEVICE, copy=True), step)
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
    program = Program(text_bias=(TextBias("ab", 2.0),), text_suppress=(TextSuppress(" ab"),))
    row = on_device([program], torch.zeros(1, len(TOKENS)), [[0, 3]])[0]
    expected = torch.zeros(len(TOKENS))
    expected[[0, 2]] = 2.0
    expected[[2, len(TOKENS) - 2]] = -INF
    assert torch.equal(row, expected)
