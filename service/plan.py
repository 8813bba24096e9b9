"""What Sensefield does for one request: its program, its rows, its share of the budget."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from logit_processors.controls import WIRE_KEY, ControlError, Program
from logit_processors.residual import ResidualSteer
from logit_processors.row_spec import DENSE, PROMPT_KEY, RowSpec
from service.errors import BadRequestError, echo
from service.limits import (
    BASE64_COPIES,
    JSON_BYTES_PER_NUMBER,
    OPENAI_BYTES_PER_ENTRY,
    Budget,
    Claim,
)
from service.metrics import QUEUED
from service.schemas.control import LogitControl, build_program
from service.schemas.distribution import DistributionRequest
from service.schemas.residual import build_residual
from service.settings import Settings
from service.vectors.registry import VectorRegistry


@dataclass(frozen=True)
class Asked:
    """The parts of a request that Sensefield answers for."""

    control: LogitControl | None
    distribution: DistributionRequest | None
    logit_bias: dict[str, float] | None
    logprobs: int | None
    """OpenAI's number of alternatives; None if no logprobs were asked for, -1 for all."""
    logprobs_field: str
    """Where that number stands in the request."""
    stream: bool
    choices: int
    """``n``."""
    beam_search: bool
    scored_token_ids: bool
    """Whether vLLM's ``logprob_token_ids`` is used."""
    prompt_logprobs: int | None = None
    """The alternatives that vLLM's ``prompt_logprobs`` or ``echo`` ask for, likewise."""
    arrow: bool = False
    """Whether the answer is an Arrow stream."""


@dataclass
class Planner:
    """Checks requests against what this server holds and allows."""

    settings: Settings
    vectors: VectorRegistry
    vocab_size: int
    """Tokens that exist."""
    width: int
    """Logits."""
    budget: Budget
    encode: Callable[[str], list[int]]
    """The tokens of a text that goes on."""

    def plan(self, asked: Asked) -> Plan:
        """Return the plan of a request.

        Raises:
            BadRequestError: something that cannot be.
            NotFoundError: a vector that does not exist.

        """
        try:
            program = build_program(
                asked.control,
                asked.logit_bias,
                self.vocab_size,
                self.vectors.scored_content_of,
                self.encode,
            )
            residual = build_residual(
                asked.control,
                self.vectors.content_of,
                self.vectors.layers_of,
                self.vectors.residual.support.unsupported,
            )
        except ControlError as error:
            raise BadRequestError(error.message, error.param) from None
        self._check(asked, program is not None or bool(residual))
        can_fail = bool(residual) or (program is not None and program.can_fail)
        spec = row_spec(asked, can_fail)
        resources = ExitStack()
        if program is not None and program.steer:
            leased = {entry.vector for entry in program.steer}
            resources.enter_context(self.vectors.lease(leased))
        if residual:
            leased = {entry.vector for entry in residual}
            resources.enter_context(self.vectors.lease(leased))
            resources.enter_context(self.vectors.residual.lease(leased))
        prompt = prompt_spec(asked)
        return Plan(asked, program, residual, spec, prompt, self.width, self.budget, resources)

    def _check(self, asked: Asked, controls: bool) -> None:
        distribution = asked.distribution
        self._check_form(asked)
        if distribution is not None and distribution.kept > self.width:
            raise BadRequestError(
                f"{echo(distribution.top_k)} is more than the vocabulary; allowed: 1 to "
                f'{self.width}, or "all"',
                "distribution.top_k",
            )
        cap = self.settings.max_top_logprobs
        cap = self.width if cap is None else min(cap, self.width)
        for field_name, count in (
            (asked.logprobs_field, asked.logprobs),
            ("prompt_logprobs", asked.prompt_logprobs),
        ):
            if count is not None and (count > cap or (count == DENSE and cap < self.width)):
                raise BadRequestError(
                    f"{echo(count)} alternatives are too many; allowed: up to {cap}", field_name
                )
        if asked.beam_search and (controls or distribution is not None):
            raise BadRequestError(
                "beam search cannot be combined with logit_control, logit_bias or distribution",
                "use_beam_search",
            )
        if asked.scored_token_ids and distribution is not None:
            raise BadRequestError(
                "logprob_token_ids cannot be combined with distribution; a distribution holds "
                "every token",
                "logprob_token_ids",
            )

    def _check_form(self, asked: Asked) -> None:
        """Refuse what has no meaning in the form that was asked for."""
        distribution = asked.distribution
        if asked.arrow and distribution is None:
            raise BadRequestError(
                "an Arrow stream holds distributions; ask for one, or accept application/json",
                "distribution",
            )
        if distribution is None:
            return
        if asked.arrow and "encoding" in distribution.model_fields_set:
            raise BadRequestError(
                f"{echo(distribution.encoding)} does not apply to an Arrow stream; leave it out",
                "distribution.encoding",
            )
        if distribution.compression is not None and not asked.arrow:
            raise BadRequestError(
                f"{echo(distribution.compression)} applies to an Arrow stream only; send "
                "Accept: application/vnd.apache.arrow.stream",
                "distribution.compression",
            )


def row_spec(asked: Asked, can_fail: bool) -> RowSpec | None:
    """Return what must be kept of each row for everything that was asked.

    Args:
        asked: the request.
        can_fail: whether its control can lack a vector or pattern, or leave a row no token.

    """
    if asked.beam_search or asked.scored_token_ids:
        return None
    distribution, logprobs = asked.distribution, asked.logprobs
    if distribution is None and logprobs is None:
        # A row that says whether control could be applied and left the token a choice.
        return RowSpec() if can_fail else None
    kept = distribution.kept if distribution is not None else 0
    wanted = {kept, logprobs or 0}
    stages = distribution.stages if distribution is not None else []
    return RowSpec(
        top_k=DENSE if DENSE in wanted else max(wanted),
        base="base" in stages or logprobs is not None,
        controlled="controlled" in stages,
        half=distribution is not None and distribution.dtype == "float16" and logprobs is None,
    )


def prompt_spec(asked: Asked) -> RowSpec | None:
    """Return what must be kept of each of the prompt's rows."""
    like = _of_prompt(asked)
    if like.distribution is None and like.logprobs is None:
        return None
    return row_spec(like, can_fail=False)


def prompt_bytes(asked: Asked, spec: RowSpec, width: int, tokens: int) -> int:
    """Return the most memory that the rows of a prompt of ``tokens`` may take."""
    return request_bytes(_of_prompt(asked), spec, width, tokens)


def _of_prompt(asked: Asked) -> Asked:
    """Return what was asked of the prompt, as if it was asked of tokens, and at once."""
    distribution = asked.distribution
    return replace(
        asked,
        distribution=None if distribution is None or not distribution.prompt else distribution,
        logprobs=asked.prompt_logprobs,
        scored_token_ids=False,
        stream=False,
        arrow=False,
        choices=1,
    )


def request_bytes(asked: Asked, spec: RowSpec, width: int, tokens: int) -> int:
    """Return the most memory that ``tokens`` generated tokens of this request may take."""
    kept = width if spec.top_k == DENSE else spec.top_k
    number = 2 if spec.half else 4
    size = 0
    if asked.distribution is not None:
        entries = kept * len(spec.stages)
        row = entries * (number + (0 if spec.top_k == DENSE else 4))
        if asked.distribution.encoding == "json" and not asked.arrow:
            row += 2 * entries * JSON_BYTES_PER_NUMBER
        # Rows of OpenAI's logprobs stay until the end of an Arrow stream.
        leaves = asked.stream or (asked.arrow and asked.logprobs is None)
        size += row if leaves else row * BASE64_COPIES
    if asked.logprobs is not None:
        listed = width if asked.logprobs == DENSE else asked.logprobs
        size += (listed + 1) * OPENAI_BYTES_PER_ENTRY
    return size * tokens * asked.choices


@dataclass
class Plan:
    """One request's plan, from admission to the end of its answer."""

    asked: Asked
    program: Program | None
    residual: tuple[ResidualSteer, ...]
    spec: RowSpec | None
    prompt_spec: RowSpec | None
    width: int
    budget: Budget
    resources: ExitStack
    tokens: int = 0
    """Tokens generated so far."""
    _claims: list[Claim] = field(default_factory=list)
    _queued: bool = False

    def enter_queue(self) -> None:
        """Count the request as waiting for its first token."""
        self._queued = True
        QUEUED.inc()

    def leave_queue(self) -> None:
        """Count it as waiting no longer."""
        if self._queued:
            self._queued = False
            QUEUED.dec()

    @property
    def shows_rows(self) -> bool:
        """Say whether rows go into the answer, and do not only tell that control was applied."""
        return self.asked.distribution is not None or self.asked.logprobs is not None

    @property
    def controls(self) -> dict[str, int]:
        """Return how many entries of each kind of control are used."""
        program = self.program or Program()
        used = {
            "token_bias": program.token_bias,
            "text_bias": program.text_bias,
            "steer_logits": program.steer,
            "steer_residual": self.residual,
            "token_suppress": program.token_suppress,
            "text_suppress": program.text_suppress,
            "force": program.force,
        }
        return {kind: len(entries) for kind, entries in used.items() if entries}

    def apply_to(self, params: Any, max_tokens: int) -> None:
        """Put the plan into a request's ``SamplingParams`` and claim its memory.

        Raises:
            BadRequestError: its rows can never fit the budget.
            SaturatedError: they do not fit now.

        """
        wire: dict[str, Any] = {}
        if self.program is not None:
            wire["program"] = self.program.to_wire()
        if self.residual:
            wire["residual"] = [entry.to_wire() for entry in self.residual]
        if self.spec is not None:
            wire["rows"] = self.spec.to_wire()
            asked = self.asked
            param = "distribution" if asked.distribution is not None else asked.logprobs_field
            size = request_bytes(self.asked, self.spec, self.width, max_tokens)
            if size:
                self._claims.append(self.budget.claim(size, param))
            # Any number makes the scheduler hand rows on; the rows have their own width.
            params.logprobs = 0
        if self.prompt_spec is not None:
            wire[PROMPT_KEY] = self.prompt_spec.to_wire()
            # Any number makes the runner look at the prompt; what is in the prefix cache is
            # not computed again, and has no rows.
            params.prompt_logprobs = 1
            params.skip_reading_prefix_cache = True
        if wire:
            params.extra_args = {**(params.extra_args or {}), WIRE_KEY: wire}

    def claim_prompt(self, tokens: int) -> None:
        """Claim the memory of a prompt's rows; raises as :meth:`apply_to` does."""
        if self.prompt_spec is not None:
            size = prompt_bytes(self.asked, self.prompt_spec, self.width, tokens)
            param = "prompt_logprobs"
            if self.asked.distribution is not None and self.asked.distribution.prompt:
                param = "distribution.prompt"
            self._claims.append(self.budget.claim(size, param))

    def close(self) -> None:
        """Give back what the request held."""
        self.leave_queue()
        for claim in self._claims:
            claim.release()
        self._claims.clear()
        self.resources.close()
