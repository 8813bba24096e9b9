"""Checks a request against what this server holds and allows, and plans it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

from logit_processors.checks import ControlError
from logit_processors.row_spec import DENSE
from service.errors import BadRequestError, echo
from service.planning.asked import Asked, prompt_spec, row_spec
from service.planning.budget import Budget
from service.planning.patterns import Patterns
from service.planning.plan import Plan
from service.schemas.control import LogitControl, build_program
from service.schemas.residual import build_residual
from service.settings import Settings
from service.vectors.registry import VectorRegistry


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
    patterns: Patterns
    encode: Callable[[str], list[int]]
    """The tokens of a text that goes on."""

    async def knowing(self, control: LogitControl | None) -> Planner:
        """Return a planner that has the tokens of a forced text: to find them may take long.

        Raises:
            BadRequestError: the text is longer than any that the model takes.

        """
        if control is None or control.force is None or control.force.text is None:
            return self
        token_ids = await asyncio.to_thread(self.encode, control.force.text)
        return replace(self, encode=lambda _: token_ids)

    def plan(self, asked: Asked) -> Plan:
        """Return the plan of a request.

        Raises:
            BadRequestError: something that cannot be.
            NotFoundError: a vector that does not exist.
            SaturatedError: there is no room for its text patterns now.

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
        can_fail = bool(residual) or (program is not None and program.can_fail)
        self._check(asked, program is not None or bool(residual), can_fail)
        spec = row_spec(asked, can_fail)
        with ExitStack() as holding:
            if program is not None and program.pattern_bytes:
                holding.enter_context(self.patterns.hold(program))
            if program is not None and program.steer:
                leased = {entry.vector for entry in program.steer}
                holding.enter_context(self.vectors.lease(leased))
            if residual:
                leased = {entry.vector for entry in residual}
                holding.enter_context(self.vectors.lease(leased))
                holding.enter_context(self.vectors.residual.lease(leased))
            resources = holding.pop_all()
        prompt = prompt_spec(asked)
        return Plan(asked, program, residual, spec, prompt, self.width, self.budget, resources)

    async def compile(self, plan: Plan) -> None:
        """Compile the plan's text patterns, which it needs before its request begins."""
        if plan.program is not None:
            plan.patterns = await self.patterns.compile(plan.program)

    def _check(self, asked: Asked, controls: bool, can_fail: bool) -> None:
        distribution = asked.distribution
        self._check_form(asked)
        if distribution is not None and distribution.kept > self.width:
            raise BadRequestError(
                f"{echo(distribution.top_k)} is more than the vocabulary; allowed: 1 to "
                f'{self.width}, or "all"',
                "distribution.top_k",
            )
        cap = min(self.settings.max_top_logprobs, self.width)
        for field_name, count in (
            (asked.logprobs_field, asked.logprobs),
            ("prompt_logprobs", asked.prompt_logprobs),
        ):
            if count is not None and (count > cap or (count == DENSE and cap < self.width)):
                asked_for = f"all {self.width}" if count == DENSE else echo(count)
                raise BadRequestError(
                    f"{asked_for} alternatives a token are too many; allowed: up to {cap}, and "
                    "any number in `distribution`",
                    field_name,
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
        if asked.scored_token_ids and can_fail:
            raise BadRequestError(
                "logprob_token_ids cannot be combined with logit_control that may fail: its rows "
                "would not tell; allowed: bias of tokens",
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
