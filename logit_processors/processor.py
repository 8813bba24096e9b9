"""The logits processor that vLLM loads, for both of its model runners.

V1 identifies rows by their index in the batch, and reports requests that are added, removed and
moved; V2 identifies rows by slots. Each has its own adapter; vLLM loads this one class, which
creates the right adapter.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.v1.sample.logits_processor.interface import LogitsProcessor as V1LogitsProcessor
from vllm.v1.worker.gpu.sample.logits_processor.interface import (
    LogitsProcessor as V2LogitsProcessor,
)

from logit_processors.checks import ControlError, require
from logit_processors.pattern_sets import CompiledPattern
from logit_processors.patterns import Pattern
from logit_processors.pipeline import Pipeline
from logit_processors.places import Places
from logit_processors.program import NO_PROGRAM, Program
from logit_processors.residual import StreamRequest
from logit_processors.row_spec import PlainLogprobs, RowSpec, masks_of
from logit_processors.vocabulary import Vocabulary
from logit_processors.wire import PATTERNS_KEY, WIRE_KEY


@dataclass(frozen=True)
class Wanted:
    """The settings of one request's rows: a program to run and values to keep."""

    program: Program | None = None
    """None if it does not change logits."""
    rows: RowSpec | PlainLogprobs | None = None
    patterns: Mapping[Pattern, CompiledPattern] = field(default_factory=dict)
    """The program's text patterns, compiled."""
    masked: bool = False
    """True if vLLM's own masks may leave the request no token."""
    seed: int = 0
    """The seed of its controls' random numbers."""

    @property
    def watched(self) -> bool:
        """Say whether each row must be checked for a token that is left."""
        return self.program is not None or self.masked

    @classmethod
    def of(cls, sampling_params: Any) -> Wanted:
        """Read a request's ``SamplingParams``.

        Raises:
            ControlError: ``extra_args`` hold a bad program or row spec.

        """
        wire = (sampling_params.extra_args or {}).get(WIRE_KEY)
        masked = bool(masks_of(sampling_params))
        if wire is None:
            return cls(None, _plain_logprobs(sampling_params), masked=masked)
        if not isinstance(wire, dict):
            raise ControlError(WIRE_KEY, f"an object is expected, not {type(wire).__name__}")
        program = Program.from_wire(wire["program"]) if wire.get("program") else NO_PROGRAM
        rows = RowSpec.model_validate(wire["rows"]) if wire.get("rows") else None
        patterns = _patterns(program, wire.get(PATTERNS_KEY, ()))
        rows_wanted = rows or _plain_logprobs(sampling_params)
        seed = sampling_params.seed or 0
        return cls(program if program.at_logits else None, rows_wanted, patterns, masked, seed)


def _patterns(program: Program, wire: Sequence[Any]) -> dict[Pattern, CompiledPattern]:
    patterns = program.patterns
    require(
        len(wire) == len(patterns),
        PATTERNS_KEY,
        f"{len(wire)} compiled patterns do not fit a program of {len(patterns)}",
    )
    return dict(zip(patterns, map(CompiledPattern.from_wire, patterns, wire), strict=True))


def _plain_logprobs(sampling_params: Any) -> PlainLogprobs | None:
    token_ids = tuple(sampling_params.logprob_token_ids or ())
    if token_ids:
        return PlainLogprobs(0, token_ids)
    count = sampling_params.num_logprobs
    return None if count is None else PlainLogprobs(count)


class ControlProcessor(V1LogitsProcessor, V2LogitsProcessor):
    """Runs each request's control program on its rows."""

    _pipeline: Pipeline

    def __new__(cls, _config: Any, *arguments: Any) -> Self:
        """Create the runner's adapter: V1 passes a device, V2 its request state."""
        from logit_processors.v1 import V1ControlProcessor
        from logit_processors.v2 import V2ControlProcessor

        is_v1 = isinstance(arguments[0], torch.device)
        adapter: Any = V1ControlProcessor if is_v1 else V2ControlProcessor
        made: Self = object.__new__(adapter)
        return made

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Refuse a request with bad control, before the engine gets it."""
        Wanted.of(sampling_params)
        StreamRequest.of(sampling_params)

    def is_argmax_invariant(self) -> bool:
        """Return False: control changes the most likely token."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Apply an update of V1's batch; V2 has no such updates."""

    def held(self) -> dict[str, int]:
        """Return the number of resources that the slots hold for running requests."""
        return self._pipeline.held()

    @abstractmethod
    def wanted_rows(self, count: int) -> dict[int, RowSpec | PlainLogprobs]:
        """Return the row specs of the batch's first ``count`` requests, by request."""

    @abstractmethod
    def has_program(self, request: int) -> bool:
        """Say whether a request, by its index in the batch, has a control program."""

    @abstractmethod
    def run_programs(self, logits: torch.Tensor, places: Places) -> torch.Tensor:
        """Return the controlled logits of some of the step's rows.

        Args:
            logits: ``[rows, vocab]`` of any float dtype; not changed.
            places: the rows of the logits.

        Returns:
            ``[rows, vocab]`` float32.

        """

    @abstractmethod
    def alive(self, places: Places) -> torch.Tensor:
        """Return the status of the step's rows after ``apply``: ``[rows]`` float32.

        Each is ALIVE, EXHAUSTED or BROKEN; rows of a request that is not watched are ALIVE.
        """


def load_vocabulary(model_config: Any) -> Vocabulary | None:
    """Return the model's vocabulary, or None for a server without a tokenizer."""
    tokenizer = cached_tokenizer_from_config(model_config)
    if tokenizer is None:
        return None
    return Vocabulary.from_tokenizer(tokenizer, model_config.get_vocab_size())
