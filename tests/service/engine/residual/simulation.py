"""An engine's steps without the engine, and beside them what each token should become."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from vllm import SamplingParams

from logit_processors.controls.steer import SteerEntry
from logit_processors.program import Program
from logit_processors.residual import Capture, StreamRequest
from service.engine.residual.bank import Bank
from service.engine.residual.device import DeviceBuffers
from service.engine.residual.host import HostBuffers
from service.engine.residual.step import StepLayout
from service.engine.residual.stream import Buffers, ResidualStream, Support

LAYERS = 3
OWN = (2, 3, 5)
"""Numbers of the layers that the simulated rank runs, of six."""
SIZE = 5
ROWS = 4
"""Requests in a step, at most."""
INTERPRETED = "TRITON_INTERPRET" in os.environ
"""Whether this is the child that one test starts, which has Triton's interpreter."""
VECTORS = {"a": OWN, "b": (0, 3, 5), "c": (2,)}
"""The vectors that every simulation starts with, and the layers that each carries."""


def params(wanted: StreamRequest) -> SamplingParams:
    """Return sampling parameters that ask for what is wanted."""
    program = Program.of({"steer_residual": wanted.steer})
    wire: dict[str, Any] = {"program": program.to_wire()}
    if wanted.capture is not None:
        wire["capture"] = wanted.capture.model_dump()
    return SamplingParams(extra_args={"sensefield": wire})


@dataclass
class Simulated:
    """A request: ``vectors`` are the contents that it started with, by name."""

    wanted: StreamRequest
    prompt_len: int
    vectors: dict[str, dict[int, NDArray[np.float64]]]
    computed: int = 0
    seen: dict[int, NDArray[np.float64]] = field(default_factory=dict)

    def additions(self, token: int, number: int) -> list[NDArray[np.float64]]:
        """Return what a layer adds to a token, entry by entry."""
        position = token + 1 - self.prompt_len
        parts = []
        for entry in self.wanted.steer:
            inside = entry.covers(position)
            vector = self.vectors[entry.vector].get(number)
            named = entry.layers is None or number in entry.layers
            if inside and named and vector is not None and entry.strength:
                parts.append(entry.strength * vector)
        return parts

    def mean(self, last: int) -> NDArray[np.float64]:
        """Return the mean ``[layers, size]`` over the last prompt tokens."""
        tokens = range(max(0, self.prompt_len - last), self.prompt_len)
        return np.mean([self.seen[token] for token in tokens], axis=0)


class Simulation:
    """Steps through a stream, with a GPU's buffers under Triton's interpreter and else a CPU's."""

    def __init__(
        self, dtype: torch.dtype = torch.float32, capacity: int = 8, seed: int = 0
    ) -> None:
        bank = Bank(capacity, OWN, SIZE, dtype, torch.device("cpu"))
        buffers: Buffers = DeviceBuffers(bank, ROWS, 128) if INTERPRETED else HostBuffers(bank)
        self.stream = ResidualStream(Support(None, 6, OWN), bank, buffers)
        self.vectors: dict[str, dict[int, NDArray[np.float64]]] = {}
        self.running: dict[str, Simulated] = {}
        self._random = np.random.default_rng(seed)
        self._dtype = dtype
        self._started = 0
        for name, numbers in VECTORS.items():
            self.put(name, numbers)

    def put(self, name: str, numbers: Sequence[int]) -> None:
        """Keep a random vector that carries some layers."""
        values = torch.from_numpy(self._random.standard_normal((len(numbers), SIZE))).float()
        assert self.stream.bank.put(name, values, list(numbers))
        held = values.to(self._dtype).double().numpy()
        self.vectors[name] = dict(zip(numbers, held, strict=True))

    def drop(self, name: str) -> None:
        """Forget a vector."""
        self.stream.bank.drop(name)
        del self.vectors[name]

    def start(
        self, steer: Sequence[SteerEntry], prompt_len: int, capture: Capture | None = None
    ) -> str:
        """Start a request and return its id."""
        self._started += 1
        name = f"request {self._started}"
        wanted = StreamRequest(tuple(steer), capture)
        self.stream.start(name, params(wanted), prompt_len)
        self.running[name] = Simulated(wanted, prompt_len, dict(self.vectors))
        return name

    def preempt(self, name: str) -> None:
        """Take a request's computed tokens away; it begins anew, as V2 tells it."""
        request = self.running[name]
        request.computed = 0
        self.stream.start(name, params(request.wanted), request.prompt_len)

    def end(self, name: str) -> None:
        """End a request."""
        self.stream.end(name)
        del self.running[name]

    def step(self, work: Sequence[tuple[str, int]], padding: int = 0) -> None:
        """Run a step of (request, tokens) and compare every token after every layer."""
        total = sum(count for _, count in work) + padding
        layout = self.layout(work, total)
        starts = layout.starts
        self.stream.begin_step(layout)
        for at, number in enumerate(OWN):
            hidden = torch.from_numpy(self._random.standard_normal((total, SIZE))).to(self._dtype)
            other = torch.from_numpy(self._random.standard_normal((total, SIZE))).to(self._dtype)
            before = hidden.clone()
            place = torch.tensor([at], dtype=torch.int32)
            self.stream.buffers.apply(hidden, other, place)
            self._compare(work, starts, before, hidden, other, at, number)
        self.stream.end_step()
        for name, count in work:
            self.running[name].computed += count

    def layout(self, work: Sequence[tuple[str, int]], total: int) -> StepLayout:
        """Return the layout of a step of ``total`` tokens, padding included."""
        starts = np.cumsum([0, *(count for _, count in work)])
        first = np.array([self.running[name].computed for name, _ in work])
        positions = np.zeros(total, np.int64)
        for (_, count), start, begin in zip(work, starts, first, strict=False):
            positions[start : start + count] = begin + np.arange(count)
        return StepLayout(
            [name for name, _ in work],
            starts,
            first,
            torch.from_numpy(starts).int(),
            torch.from_numpy(positions),
        )

    def _compare(
        self,
        work: Sequence[tuple[str, int]],
        starts: NDArray[np.integer[Any]],
        before: torch.Tensor,
        after: torch.Tensor,
        other: torch.Tensor,
        at: int,
        number: int,
    ) -> None:
        touched = torch.zeros(len(before), dtype=torch.bool)
        for (name, count), start in zip(work, starts, strict=False):
            request = self.running[name]
            for index in range(count):
                token, row = request.computed + index, int(start) + index
                added = request.additions(token, number)
                stream = after[row].double().numpy()
                if added:
                    touched[row] = True
                    terms = np.array([before[row].double().numpy(), *added])
                    # Each of at most four products and five sums is off by half an eps of the
                    # largest partial sum, however much of it cancels in the end.
                    allowed = 4 * torch.finfo(self._dtype).eps * np.abs(terms).sum(axis=0)
                    assert (np.abs(stream - terms.sum(axis=0)) <= allowed).all()
                seen = request.seen.setdefault(token, np.zeros((LAYERS, SIZE)))
                seen[at] = stream + other[row].double().numpy()
        assert (before[~touched] == after[~touched]).all()
