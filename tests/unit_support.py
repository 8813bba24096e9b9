"""What several unit tests share: small vocabularies, programs run without an engine, fakes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from vllm.platforms import current_platform
from vllm.triton_utils import HAS_TRITON

from logit_processors.directions import Directions
from logit_processors.history import HostHistory
from logit_processors.host_text import HostTexts
from logit_processors.kernels import has_kernels
from logit_processors.pattern_sets import CompiledPattern
from logit_processors.patterns import Pattern
from logit_processors.pipeline import Pipeline
from logit_processors.program import Program
from logit_processors.row_spec import STATISTICS, TokenRow
from logit_processors.table import EngineFacts, Rows
from logit_processors.vocabulary import Vocabulary
from service.vectors.content import ModelFacts

CPU = torch.device("cpu")
KERNEL_DEVICE = torch.device(current_platform.device_type) if HAS_TRITON else None
"""Where Triton's kernels run, if they do."""
INF = float("inf")
FLOAT32 = float(np.finfo(np.float32).max)
FOUR = Vocabulary([b"a", b"b", b"ab", b" "])
"""Four tokens, so that a distribution can be worked out by hand."""


def compiled_of(program: Program, vocabulary: Vocabulary = FOUR) -> dict[Pattern, CompiledPattern]:
    """Return a program's text patterns, compiled."""
    return {pattern: CompiledPattern.of(pattern, vocabulary) for pattern in program.patterns}


def pipeline_of(
    count: int,
    directions: Directions | None = None,
    vocabulary: Vocabulary = FOUR,
    *,
    device: torch.device = CPU,
    kernels: bool | None = None,
) -> Pipeline:
    """Return a pipeline with so many slots for requests; it matches texts on the host."""
    kernels = has_kernels(device) if kernels is None else kernels
    texts = HostTexts(vocabulary, CPU)
    directions = Directions() if directions is None else directions
    return Pipeline(EngineFacts(count + 1, device, kernels, directions, texts))


def rows_of(
    slots: Sequence[int] | NDArray[np.int64],
    positions: Sequence[int],
    outputs: Sequence[Sequence[int]] | None = None,
    device: torch.device = CPU,
) -> Rows:
    """Return rows of slots at positions, whose generated tokens the host knows."""
    host_slots = np.array(slots, np.int64)
    nothing: Sequence[Sequence[int]] = [()] * len(host_slots)
    return Rows(
        host_slots,
        torch.from_numpy(host_slots).to(device),
        torch.tensor(list(positions), device=device),
        HostHistory(outputs or nothing, nothing, device),
    )


def run_programs(
    programs: Sequence[Program | None],
    logits: torch.Tensor,
    outputs: Sequence[Sequence[int]] | None = None,
    vocabulary: Vocabulary = FOUR,
    directions: Directions | None = None,
) -> torch.Tensor:
    """Apply one program a row to a copy of ``[rows, vocab]`` logits, as the V1 adapter does."""
    outputs = outputs if outputs is not None else [[]] * len(programs)
    pipeline = pipeline_of(len(programs), directions, vocabulary)
    for row, program in enumerate(programs):
        pipeline.set(row, program, compiled_of(program, vocabulary) if program else None)
    rows = rows_of(range(len(programs)), [len(output) for output in outputs], outputs)
    return pipeline.apply(logits.clone(), rows)


def same(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Say whether two tensors hold the very same numbers."""
    return left.shape == right.shape and bool((left == right).all())


@dataclass
class FakeEngine:
    """Answers collective_rpc as a worker that holds vectors would, and records the calls."""

    hidden_size: int = 4
    resident: set[str] = field(default_factory=set)
    calls: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    refuse_with: Exception | None = None
    unscored_because: str | None = None
    residual: set[str] = field(default_factory=set)
    residual_capacity: int = 2
    parts: int = 1
    """Calls until directions are prepared."""
    may_answer: asyncio.Event | None = None
    """Until it is set, calls are recorded and wait."""

    async def collective_rpc(self, method: str, timeout: None, args: tuple[Any, ...]) -> list[Any]:
        """Record the call and do what it asks."""
        assert timeout is None
        self.calls.append((method, args))
        if self.may_answer is not None:
            await self.may_answer.wait()
        if self.refuse_with is not None:
            raise self.refuse_with
        answer = getattr(self, f"_{method.removeprefix('sensefield_')}")
        return [answer(*args)]

    def _put_vectors(
        self, vectors: list[tuple[str, bytes, bool]], _holder: str
    ) -> list[str | None]:
        if self.unscored_because is None:
            self.resident.update(content for content, _, _ in vectors)
        return [self.unscored_because] * len(vectors)

    def _drop_vector(self, content: str, _holder: str) -> None:
        self.resident.discard(content)

    def _put_residual(self, content: str, _data: bytes, _layers: list[int], _holder: str) -> bool:
        if len(self.residual) >= self.residual_capacity:
            return False
        self.residual.add(content)
        return True

    def _drop_residual(self, content: str, _holder: str) -> None:
        self.residual.discard(content)

    def _describe_residual(self) -> dict[str, Any]:
        return {"unsupported": None, "capacity": self.residual_capacity}

    def _prepare_directions(self) -> bool:
        return self.methods().count("prepare_directions") >= self.parts

    def _token_direction(self, _token_ids: list[int]) -> bytes:
        return np.arange(1, 1 + self.hidden_size, dtype=np.float32).tobytes()

    def _embedding_direction(self, token_ids: list[int], vocab_size: int) -> bytes:
        return np.full(self.hidden_size, vocab_size + len(token_ids), np.float32).tobytes()

    def _nearest(self, content: str, _vocab_size: int, _k: int) -> dict[str, list[Any]] | None:
        if content not in self.resident:
            return None
        return {"raised_ids": [1], "raised": [2.0], "lowered_ids": [3], "lowered": [-2.0]}

    def _nearest_layers(
        self, _data: bytes, count: int, _vocab_size: int, _k: int
    ) -> list[dict[str, list[Any]]]:
        one: dict[str, list[Any]] = {
            "raised_ids": [0],
            "raised": [1.0],
            "lowered_ids": [2],
            "lowered": [-1.0],
        }
        return [one] * count

    def _token_neighbours(
        self, token_ids: list[int], _vocab_size: int, _k: int
    ) -> dict[str, dict[str, list[Any]]]:
        one: dict[str, list[Any]] = {"token_ids": [token_ids[0] + 1], "cosines": [0.5]}
        return {"embedding": one, "unembedding": one}

    def methods(self) -> list[str]:
        """Return the names of the calls, without their common prefix."""
        return [method.removeprefix("sensefield_") for method, _ in self.calls]


class FakeStates:
    """Takes a stream that can be worked out by hand: layer times last token, 1 in front."""

    async def take(
        self, prompts: Sequence[Sequence[int]], layers: Sequence[int], last: int
    ) -> AsyncIterator[tuple[int, NDArray[np.float32]]]:
        """Yield streams ``[layers, 4]``, the last prompt first."""
        for at in reversed(range(len(prompts))):
            mean = np.mean(prompts[at][-last:])
            yield at, np.array([[1, *[layer * mean] * 3] for layer in layers], np.float32)


def model_facts(hidden_size: int = 4, layers: int = 12) -> ModelFacts:
    """Return a model that vectors must fit."""
    return ModelFacts("tiny", "llama", hidden_size, layers, "float32", FLOAT32)


def safetensors(**tensors: Sequence[float] | NDArray[Any]) -> bytes:
    """Return a safetensors file of float32 tensors; ``layer_3`` is named ``layer.3``."""
    arrays = {
        name.replace("_", "."): (
            value if isinstance(value, np.ndarray) else np.array(value, np.float32)
        )
        for name, value in tensors.items()
    }
    return save(arrays)


def token_row(
    logprobs: Sequence[Sequence[float]],
    token_ids: Sequence[Sequence[int]] | None = None,
    dtype: type[np.floating[Any]] = np.float32,
    **statistics: float,
) -> TokenRow:
    """Return a kept row: one list a stage; without ``token_ids`` a dense one."""
    values = np.array([statistics.get(name, 0.0) for name in STATISTICS], np.float32)
    ids = np.zeros((len(logprobs), 0), np.int32)
    if token_ids is not None:
        ids = np.array(token_ids, np.int32)
    return TokenRow(ids, np.array(logprobs, dtype), values)


async def cancelled_in_call(engine: FakeEngine, work: Coroutine[Any, Any, Any]) -> None:
    """Cancel whoever waits for work once it has called the engine, which then answers."""
    engine.may_answer = asyncio.Event()
    calls = len(engine.calls)
    waiting = asyncio.create_task(work)
    while len(engine.calls) == calls:
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    engine.may_answer.set()
    engine.may_answer = None
