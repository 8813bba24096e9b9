"""``/v1/chat/completions`` and ``/v1/completions``: vLLM's routes with control and rows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import APIRouter, Body, Request, Response
from pydantic import BaseModel, ValidationError

from service.access.dialect import EVENTS, sse_event
from service.access.parameters import body_of
from service.access.visit import Visit
from service.api.answers import ChatAnswer, TextAnswer
from service.api.arrow import ArrowAnswer, accepts_arrow
from service.api.context import context_of
from service.api.documentation import statuses
from service.api.outcome import Outcome
from service.api.requests import ChatRequest, TextRequest
from service.api.route import SensefieldRoute
from service.api.serving import ChatServing, TextServing
from service.api.streaming import PiecedAnswer, PiecedStream, error_in
from service.api.validation import from_validation
from service.distributions.arrow import MEDIA_TYPE
from service.engine.grammar_gate import GrammarGate
from service.engine.prompt_claims import PromptClaims
from service.engine.vllm_errors import RetryableRequestError, VLLMError
from service.engine.vllm_http import (
    ErrorInfo,
    ErrorResponse,
    create_error_response,
    load_aware_call,
    metrics_header,
    with_cancellation,
    with_sse_keep_alive,
)
from service.errors import BadRequestError, NotFoundError, RequestError, SaturatedError
from service.metrics import REJECTED
from service.planning.plan import Plan

_LOAD_FORMAT_HEADER = "endpoint-load-metrics-format"


def _answered(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI responses of the generating routes."""
    content: dict[str, Any] = {"text/event-stream": {}, MEDIA_TYPE: {}}
    return {200: {"model": model, "content": content}, **statuses(404, 409)}


router = APIRouter(route_class=SensefieldRoute, tags=["generate"])
Planned = TypeVar("Planned", ChatRequest, TextRequest)


@router.post(
    "/v1/chat/completions",
    response_model=None,
    responses=_answered(ChatAnswer),
)
@with_cancellation
@load_aware_call
async def create_chat_completion(
    request: Annotated[ChatRequest, Body()], raw_request: Request
) -> Response:
    """Answer a chat; ``logit_control`` and ``distribution`` are Sensefield's.

    ``top_logprobs`` and ``prompt_logprobs`` list as many alternatives a token as
    ``--max-top-logprobs`` allows, 1000 unless it is set; more of them come as a ``distribution``.
    """
    serving = context_of(raw_request).chat
    if serving is None:
        raise NotFoundError("the model does not generate text", "model")
    return await _serve("chat", request, raw_request, serving)


@router.post(
    "/v1/completions",
    response_model=None,
    responses=_answered(TextAnswer),
)
@with_cancellation
@load_aware_call
async def create_completion(
    request: Annotated[TextRequest, Body()], raw_request: Request
) -> Response:
    """Continue a text; ``logit_control`` and ``distribution`` are Sensefield's.

    ``logprobs`` and ``prompt_logprobs`` list as many alternatives a token as
    ``--max-top-logprobs`` allows, 1000 unless it is set; more of them come as a ``distribution``.
    """
    serving = context_of(raw_request).completions
    if serving is None:
        raise NotFoundError("the model does not generate text", "model")
    return await _serve("completions", request, raw_request, serving)


async def _serve(
    route: str, request: Planned, raw_request: Request, serving: ChatServing | TextServing
) -> Response:
    """Plan, generate and answer; release the request's resources when it has ended."""
    context = context_of(raw_request)
    arrow = accepts_arrow(raw_request.headers.get("accept", ""))
    visit = Visit.of(raw_request.scope)
    with ExitStack() as ending:
        outcome = Outcome(route, visit)
        plan: Plan | None = None
        ending.callback(lambda: outcome.end(plan.tokens if plan is not None else None))
        stream: ArrowAnswer | None = None
        result: Any
        try:
            if request.logit_control is not None:
                await context.vectors.refresh(request.logit_control.vector_names())
            _check_shown(request, serving, arrow)
            planner = await context.planner.knowing(request.logit_control)
            plan = request.make_plan(planner, arrow=arrow)
            ending.callback(plan.close)
            outcome.uses(plan.controls)
            plan.enter_queue()
            await context.prepare(plan)
            if plan.prompt_spec is not None:
                claims = PromptClaims(plan.claim_prompt)
                serving = serving.through(serving.engine_client.behind(claims))
            if arrow:
                stream = ArrowAnswer(
                    serving.engine_client, plan, context.texts, request.n or 1, visit.sent
                )
                result = await stream.start(serving.through(stream).answer(request, raw_request))
            else:
                result = await _answer(serving, request, raw_request, context.grammars)
        except (asyncio.CancelledError, GeneratorExit):
            outcome.name = "cancelled"
            raise
        except RequestError as error:
            outcome.fail(error.status)
            raise
        except RetryableRequestError as error:
            outcome.fail(SaturatedError.status)
            raise SaturatedError(str(error)) from None
        except (VLLMError, ValueError, TypeError, OverflowError) as error:
            result = _refusal(error)
        if isinstance(result, ErrorResponse):
            return _refuse(result, outcome, visit)
        if stream is not None:
            batches = _ended(stream.body(), outcome, ending.pop_all(), visit, stream)
            visit.closing = stream.failure
            return PiecedStream(batches, MEDIA_TYPE)
        if not isinstance(result, AsyncGenerator):
            outcome.name = "ok"
            headers = metrics_header(raw_request.headers.get(_LOAD_FORMAT_HEADER, ""))
            return PiecedAnswer(result, ending.pop_all(), outcome.cancel, headers)
        interval = float(getattr(raw_request.app.state.args, "sse_keep_alive_interval", 0))
        events = _ended(with_sse_keep_alive(result, interval), outcome, ending.pop_all(), visit)
        return PiecedStream(events, EVENTS)


async def _answer(
    serving: ChatServing | TextServing, request: Any, raw_request: Request, gate: GrammarGate
) -> Any:
    """Return vLLM's answer; check a stream's grammar first, so that the stream does not break."""
    result = await serving.answer(request, raw_request)
    if isinstance(result, AsyncGenerator):
        await request.check_grammar(gate)
    return result


def _check_shown(request: Any, serving: Any, arrow: bool) -> None:
    """Refuse an Arrow stream, which holds every token, if the answer hides some of them."""
    if arrow and isinstance(serving, ChatServing) and serving.hides_tokens(request):
        raise BadRequestError(
            "false hides tokens, and an Arrow stream holds them all; allowed: true, or an answer "
            "in JSON",
            "include_reasoning",
        )


def _refusal(error: Exception) -> ErrorResponse:
    """Return vLLM's answer to an error; pydantic's errors are reworded for clients."""
    if isinstance(error, ValidationError):
        refused = from_validation(error.errors())
        return create_error_response(refused.message, param=refused.param)
    return create_error_response(error)


def _refuse(refusal: ErrorResponse, outcome: Outcome, visit: Visit) -> Response:
    """Return the answer to a request that failed before its first byte."""
    body = orjson.dumps(_fail(refusal.error, outcome, visit))
    task = asyncio.current_task()
    if task is not None and task.cancelling():  # vLLM turns a disconnect into an error
        outcome.name = "cancelled"
    else:
        REJECTED.labels(str(refusal.error.code), refusal.error.type).inc()
    retry = {"Retry-After": str(SaturatedError.retry_after)} if refusal.error.code == 503 else None
    return Response(body, refusal.error.code, retry, "application/json")


def _fail(error: ErrorInfo, outcome: Outcome, visit: Visit) -> dict[str, Any]:
    """Record the request's failure, and return vLLM's error as an error object."""
    outcome.fail(error.code)
    return body_of(error, visit.sent)


async def _ended(
    events: AsyncGenerator[Any, None],
    outcome: Outcome,
    ending: ExitStack,
    visit: Visit,
    stream: ArrowAnswer | None = None,
) -> AsyncGenerator[Any, None]:
    """Pass events on, and end the request after the last one or when the client disconnects.

    vLLM follows an error with ``[DONE]``, like a success; here the error is the last event.
    """
    with ending:
        outcome.name = "cancelled"
        async with aclosing(events):
            async for event in events:
                if (error := error_in(event)) is not None:
                    yield sse_event(_fail(error, outcome, visit))
                    return
                yield event
        outcome.name = "ok" if stream is None else stream.outcome
