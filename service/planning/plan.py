"""The plan of one request: its program, its rows, its share of the budget."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from logit_processors.controls.force import Force, ForceTokens
from logit_processors.controls.steer import SteerEntry, SteerResidual
from logit_processors.pattern_sets import CompiledPattern
from logit_processors.program import Program
from logit_processors.row_spec import PROMPT_KEY, RowSpec, masks_of
from logit_processors.wire import PATTERNS_KEY, WIRE_KEY
from service.metrics import QUEUED
from service.planning.asked import Asked, prompt_bytes, request_bytes
from service.planning.budget import Budget, Claim


@dataclass
class Plan:
    """One request's plan, from admission to the end of its answer."""

    asked: Asked
    program: Program
    spec: RowSpec | None
    prompt_spec: RowSpec | None
    width: int
    budget: Budget
    resources: ExitStack
    patterns: tuple[CompiledPattern, ...] = ()
    """The program's patterns, once compiled."""
    tokens: int = 0
    """Tokens generated so far."""
    unseen: tuple[str, ...] = ()
    """Logits processors of the server whose effect no row shows."""
    masks: tuple[str, ...] = ()
    """vLLM's fields in the request that may forbid every token."""
    _claims: list[Claim] = field(default_factory=list)
    _queued: bool = False

    def enter_queue(self) -> None:
        """Count a streamed request as waiting for its first token; ignore other requests."""
        if self.asked.stream or self.asked.arrow:
            self._queued = True
            QUEUED.inc()

    def leave_queue(self) -> None:
        """Stop counting the request as waiting."""
        if self._queued:
            self._queued = False
            QUEUED.dec()

    @property
    def shows_rows(self) -> bool:
        """Say whether rows go into the answer, rather than only report that control was applied."""
        return self.asked.distribution is not None or self.asked.logprobs is not None

    @property
    def controls(self) -> dict[str, int]:
        """Return the number of entries of each kind of control."""
        return {
            control.name: sum(entry.count for entry in entries)
            for control, entries in self.program.used()
        }

    @property
    def residual(self) -> tuple[SteerEntry, ...]:
        """The entries that steer the residual stream."""
        steer: Any = self.program.entries.get(SteerResidual.name, ())
        return tuple(steer)

    def apply_to(self, params: Any, max_tokens: int) -> None:
        """Put the plan into a request's ``SamplingParams`` and claim its memory.

        Raises:
            BadRequestError: its rows can never fit the budget.
            SaturatedError: they do not fit now.

        """
        wire: dict[str, Any] = {}
        self.masks = masks_of(params)
        if self.masks and self.spec is None and not self.asked.scored_token_ids:
            # Keep a row of statistics, to detect masks that left no token.
            self.spec = RowSpec()
        if self.program.entries:
            wire["program"] = self.program.to_wire()
        if self.program.draws and params.seed is None:
            # Different for each choice, and the same in all ranks.
            params.seed = secrets.randbits(48)
        if self.patterns:
            wire[PATTERNS_KEY] = [compiled.to_wire() for compiled in self.patterns]
        if self.spec is not None:
            wire["rows"] = self.spec.model_dump()
            asked = self.asked
            param = "distribution" if asked.distribution is not None else asked.logprobs_field
            size = request_bytes(self.asked, self.spec, self.width, max_tokens)
            if size:
                self._claim(size, param)
            # logprobs must be set for the scheduler to forward rows; its value is ignored.
            params.logprobs = 0
        if self.prompt_spec is not None:
            wire[PROMPT_KEY] = self.prompt_spec.model_dump()
            # prompt_logprobs must be set for the runner to compute the prompt's rows; tokens in
            # the prefix cache are not computed again and would have no rows.
            params.prompt_logprobs = 1
            params.skip_reading_prefix_cache = True
        if wire:
            params.extra_args = {**(params.extra_args or {}), WIRE_KEY: wire}

    def forcing(self, token_ids: Sequence[int]) -> Plan:
        """Return a plan that forces tokens under this request's control.

        It claims memory of its own; this plan holds its other resources.

        Raises:
            ControlError: the control suppresses a token that would be forced.

        """
        force = {ForceTokens.name: [Force(token_ids=list(token_ids))]}
        program = Program.of({**self.program.entries, **force})
        spec = self.spec or RowSpec()
        return replace(self, program=program, spec=spec, resources=ExitStack(), _claims=[])

    def claim_prompt(self, tokens: int) -> None:
        """Claim the memory of a prompt's rows; raise the errors of :meth:`apply_to`."""
        if self.prompt_spec is not None:
            size = prompt_bytes(self.asked, self.prompt_spec, self.width, tokens)
            param = "prompt_logprobs"
            if self.asked.distribution is not None and self.asked.distribution.prompt:
                param = "distribution.prompt"
            self._claim(size, param)

    def _claim(self, size: int, param: str) -> None:
        # Called for each prompt of the request.
        held = sum(claim.size for claim in self._claims)
        self._claims.append(self.budget.claim(size, param, held))

    def close(self) -> None:
        """Release the request's resources."""
        self.leave_queue()
        for claim in self._claims:
            claim.release()
        self._claims.clear()
        self.resources.close()
