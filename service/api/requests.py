"""vLLM's request models with Sensefield's two fields added."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from pydantic import BaseModel, PrivateAttr
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.renderers import TokenizeParams

from logit_processors.program import Program
from service.engine.grammar_gate import GrammarGate
from service.engine.vllm_requests import SamplingParams
from service.errors import BadRequestError
from service.planning.asked import Asked
from service.planning.plan import Plan
from service.planning.planner import Planner
from service.schemas.control import LogitControl
from service.schemas.distribution import DistributionRequest


class _Planned(BaseModel):
    """Mixin for a vLLM request model: the two fields, and the plan made of them."""

    logit_control: LogitControl | None = None
    distribution: DistributionRequest | None = None
    _plan: Plan | None = PrivateAttr(None)
    _params: SamplingParams | None = PrivateAttr(None)
    _logprobs_field: ClassVar[str]
    """The field with the number of alternatives per token."""

    @property
    def plan(self) -> Plan:
        """The request's plan, once made."""
        assert self._plan is not None
        return self._plan

    def make_plan(self, planner: Planner, *, arrow: bool) -> Plan:
        """Check the request and keep its plan; ``logit_bias`` becomes part of the program.

        For an Arrow stream vLLM makes a whole answer, and the rows are taken on their way to it.
        """
        request: Any = self
        left_to_engine = request.logprob_token_ids or request.use_beam_search
        asked = Asked(
            control=self.logit_control,
            distribution=self.distribution,
            logit_bias=request.logit_bias,
            logprobs=None if left_to_engine else self._alternatives(),
            logprobs_field=self._logprobs_field,
            stream=bool(request.stream),
            choices=request.n or 1,
            beam_search=bool(request.use_beam_search),
            scored_token_ids=bool(request.logprob_token_ids),
            prompt_logprobs=None if request.use_beam_search else self._prompt_alternatives(),
            arrow=arrow,
        )
        plan = planner.plan(asked)
        try:
            _check_allowed(plan.program, request.allowed_token_ids)
        except BadRequestError:
            plan.close()
            raise
        self._plan = plan
        if not request.use_beam_search:
            request.logit_bias = None
        if arrow:
            request.stream, request.stream_options = False, None
        return self._plan

    def to_sampling_params(self, max_tokens: int, default_sampling_params: dict[str, Any]) -> Any:
        """Return vLLM's sampling parameters, with the plan in them.

        Raises:
            VLLMValidationError: a value is not allowed.
            RequestError: as :meth:`Plan.apply_to` does.

        """
        super_params: Any = super()
        params = super_params.to_sampling_params(max_tokens, default_sampling_params)
        # params.max_tokens, not the request's: for an echo alone vLLM generates one token.
        self.plan.apply_to(params, params.max_tokens)
        self._params = params
        return params

    async def check_grammar(self, gate: GrammarGate) -> None:
        """Check the grammar, if there is one, before the answer begins.

        Raises:
            VLLMError: as :meth:`GrammarGate.check` does.

        """
        if self._params is not None and self._params.structured_outputs is not None:
            await gate.check(self._params)

    def _prompt_alternatives(self) -> int | None:
        """Return the number of alternatives per token of the prompt, by vLLM's rules."""
        request: Any = self
        if request.prompt_logprobs is None and request.echo:
            return getattr(request, self._logprobs_field)
        return request.prompt_logprobs

    def _alternatives(self) -> int | None:
        """Return the number of alternatives in OpenAI's fields; None for no logprobs."""
        raise NotImplementedError


class ChatRequest(_Planned, ChatCompletionRequest):
    """A chat completion request that may control logits and ask for distributions."""

    _logprobs_field: ClassVar[str] = "top_logprobs"

    def _alternatives(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None


class TextRequest(_Planned, CompletionRequest):
    """A completion request that may control logits and ask for distributions."""

    _logprobs_field: ClassVar[str] = "logprobs"

    def build_tok_params(self, model_config: Any) -> TokenizeParams:
        """Return vLLM's tokenization parameters; an echo needs the prompt's text."""
        params = super().build_tok_params(model_config)
        return replace(params, needs_detokenization=bool(self.echo))

    def _alternatives(self) -> int | None:
        return self.logprobs


def _check_allowed(program: Program, allowed: list[int] | None) -> None:
    """Refuse suppression of every token of ``allowed_token_ids``."""
    if not allowed:
        return
    never = program.never
    if never.issuperset(allowed):
        raise BadRequestError(
            "every token of allowed_token_ids is suppressed", "logit_control.suppress"
        )
