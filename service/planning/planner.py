"""Checks requests against this server's limits and vectors, and plans them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

from logit_processors.checks import ControlError
from logit_processors.control import Phase, Server
from logit_processors.row_spec import DENSE
from service.errors import BadRequestError, RequestError, echo
from service.planning.asked import Asked, prompt_spec, row_spec
from service.planning.budget import Budget
from service.planning.patterns import Patterns
from service.planning.plan import Plan
from service.planning.programs import build_program
from service.schemas.control import LogitControl
from service.settings import Settings
from service.vectors.registry import VectorRegistry


@dataclass
class Planner:
    """Checks and plans requests."""

    settings: Settings
    vectors: VectorRegistry
    vocab_size: int
    """Number of tokens in the vocabulary."""
    width: int
    """Number of logits."""
    budget: Budget
    patterns: Patterns
    encode: Callable[[str], list[int]]
    """Encodes a text without special tokens."""
    unseen: tuple[str, ...] = ()
    """Logits processors of the server whose effect no row shows."""

    async def knowing(self, control: LogitControl | None) -> Planner:
        """Return a planner with the control's texts encoded, which may take long.

        Raises:
            BadRequestError: a text is longer than the model's context.

        """
        texts = [] if control is None else control.texts()
        if not texts:
            return self
        known = {text: await asyncio.to_thread(self.encode, text) for text in texts}
        return replace(self, encode=lambda text: known[text])

    def plan(self, asked: Asked) -> Plan:
        """Return the plan of a request.

        Raises:
            BadRequestError: a value is not allowed.
            NotFoundError: a vector does not exist.
            SaturatedError: there is no memory for its text patterns now.

        """
        try:
            program = build_program(asked.control, asked.logit_bias, self._server())
        except ControlError as error:
            raise BadRequestError(error.message, error.param) from None
        self._check(asked, bool(program.entries), program.can_fail)
        spec = row_spec(asked, program.can_fail)
        with ExitStack() as holding:
            if program.pattern_bytes:
                holding.enter_context(self.patterns.hold(program))
            if vectors := program.vectors(*Phase):
                holding.enter_context(self.vectors.lease(vectors))
            if vectors := program.vectors(Phase.MODEL):
                holding.enter_context(self.vectors.residual.lease(vectors))
            resources = holding.pop_all()
        prompt = prompt_spec(asked)
        held = self.budget, resources
        return Plan(asked, program, spec, prompt, self.width, *held, unseen=self.unseen)

    def _server(self) -> Server:
        return Server(
            vocab_size=self.vocab_size,
            encode=self.encode,
            scored_vector=_named(self.vectors.scored_content_of),
            vector=_named(self.vectors.content_of),
            layers_of=self.vectors.layers_of,
            unsupported=self.vectors.residual.support.unsupported,
        )

    async def compile(self, plan: Plan) -> None:
        """Compile the plan's text patterns, before its request begins."""
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
                "would not show a failure; allowed: bias of tokens",
                "logprob_token_ids",
            )

    def _check_form(self, asked: Asked) -> None:
        """Refuse options that the requested form of answer cannot have."""
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


def _named(find: Callable[[str], str]) -> Callable[[str], str]:
    """Return a look-up of vectors whose errors name the field."""

    def found(name: str) -> str:
        try:
            return find(name)
        except RequestError as error:
            error.param = "vector"
            raise

    return found
