"""vLLM's own objects, built as its engine builds them.

Never stand-ins: one that has what vLLM's has not, or lacks what it has, hides a fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.worker.cpu import buffer_utils as cpu_buffers
from vllm.v1.worker.gpu import buffer_utils as gpu_buffers
from vllm.v1.worker.gpu.input_batch import InputBatch, InputBuffers
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsContext, LogitsProcessor
from vllm.v1.worker.gpu.sample.sampler import Sampler
from vllm.v1.worker.gpu.states import RequestState

from logit_processors.program import Program
from logit_processors.vocabulary import Vocabulary
from logit_processors.wire import PATTERNS_KEY, WIRE_KEY
from tests.unit_support import compiled_of


def vllm_config(max_num_seqs: int) -> VllmConfig:
    """Return the configuration of an engine without a model."""
    config = VllmConfig()
    config.scheduler_config.max_num_seqs = max_num_seqs
    return config


def sampling_params(wire: dict[str, Any] | None = None, **fields: Any) -> SamplingParams:
    """Return the parameters of a request that carries a wire of Sensefield's, or none."""
    return SamplingParams(extra_args=None if wire is None else {WIRE_KEY: wire}, **fields)


def engine_request(params: SamplingParams | None = None) -> EngineCoreRequest:
    """Return a request as the engine gets it, of a prompt of one token."""
    return EngineCoreRequest(
        request_id="request",
        prompt_token_ids=[1],
        mm_features=None,
        sampling_params=params,
        pooling_params=None,
        arrival_time=0.0,
        lora_request=None,
        cache_salt=None,
        data_parallel_rank=None,
    )


def program_wire(program: Program, vocabulary: Vocabulary) -> dict[str, Any]:
    """Return what a request with a program carries, its text patterns compiled."""
    patterns = [compiled.to_wire() for compiled in compiled_of(program, vocabulary).values()]
    return {"program": program.to_wire(), PATTERNS_KEY: patterns}


def request_state(slots: int, prompt: int, length: int, device: torch.device) -> RequestState:
    """Return the state of V2's runner, whose requests all have prompts of ``prompt`` tokens."""
    with _buffers_on(device):
        state = RequestState(slots, length, length, 2, 0, device)
    state.prompt_len.np[:] = prompt
    state.prompt_len.copy_to_uva()
    return state


def v2_sampler(state: RequestState, vocab: int, processor: LogitsProcessor) -> Sampler:
    """Return V2's sampler with a processor beside its own."""
    config = vllm_config(state.max_num_reqs)
    with _buffers_on(state.device):
        return Sampler(
            config,
            state.max_num_reqs,
            vocab,
            state.device,
            state,
            custom_logits_processors=[processor],
        )


@contextmanager
def _buffers_on(device: torch.device) -> Iterator[None]:
    """Have V2's runner keep its buffers in plain memory on a CPU, as vLLM's CPU worker does."""
    with pytest.MonkeyPatch.context() as patch:
        if device.type == "cpu":
            patch.setattr(gpu_buffers, "UvaBuffer", cpu_buffers.UvaBuffer)
        yield


def input_batch(
    slots: Sequence[int],
    last: Sequence[int],
    drafts: Sequence[int] | None = None,
    device: torch.device | None = None,
) -> InputBatch:
    """Return the input batch of a step of requests that feed a token each, and drafted ones.

    Args:
        slots: of the requests.
        last: the position of the first token that each feeds.
        drafts: how many drafted tokens each has; None for a step without drafts.
        device: the step's; the CPU if None.

    """
    device = device or torch.device("cpu")
    counts = [1 + number for number in drafts or [0] * len(slots)]
    rows = sum(counts)
    places = torch.tensor([place for count in counts for place in range(count)])
    first_rows = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    dummy = InputBatch.make_dummy(len(slots), rows, InputBuffers(len(slots), rows, device))
    return replace(
        dummy,
        idx_mapping_np=np.array(slots, np.int32),
        idx_mapping=torch.tensor(slots, dtype=torch.int32, device=device),
        expanded_idx_mapping=torch.tensor(np.repeat(slots, counts), dtype=torch.int32).to(device),
        expanded_local_pos=places.int().to(device),
        num_draft_tokens=rows - len(slots),
        num_draft_tokens_per_req=None if drafts is None else np.array(drafts, np.int32),
        positions=(torch.tensor(np.repeat(last, counts)) + places).to(device),
        logits_indices=torch.arange(rows, device=device),
        cu_num_logits=torch.from_numpy(first_rows).to(device),
        cu_num_logits_np=first_rows,
    )


def context_of(batch: InputBatch, begin: int = 0, end: int | None = None) -> LogitsContext:
    """Return the context that vLLM makes of a step's requests from ``begin`` to ``end``."""
    end = batch.num_reqs if end is None else end
    rows = slice(batch.cu_num_logits_np[begin], batch.cu_num_logits_np[end])
    return LogitsContext(
        expanded_idx_mapping=batch.expanded_idx_mapping[rows],
        idx_mapping=batch.idx_mapping[begin:end],
        idx_mapping_np=batch.idx_mapping_np[begin:end],
        expanded_local_pos=batch.expanded_local_pos[rows],
        input_ids=batch.input_ids[batch.logits_indices][rows],
        pos=batch.positions[batch.logits_indices][rows],
        seq_lens_upper_bound_np=batch.seq_lens_cpu_upper_bound.numpy()[begin:end],
    )
