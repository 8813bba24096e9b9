"""``POST /v1/score``: how probable wanted continuations are, before and after control."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack, closing
from math import exp

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray

from logit_processors.checks import ControlError
from logit_processors.controls.force import MAX_FORCED
from logit_processors.row_spec import COLUMN, TokenRow
from service.access.visit import Visit
from service.api.arrow import accepts_arrow
from service.api.context import Context, context_of
from service.api.outcome import Outcome, counted
from service.api.prompts import check_tokens
from service.api.route import SensefieldRoute
from service.api.rows_tap import check_rows
from service.api.sight import answered, check_model, planned, prompt_tokens
from service.api.streaming import PiecedAnswer
from service.distributions.arrow import MEDIA_TYPE
from service.distributions.sight_arrow import score_stream
from service.engine.scoring import base_rows, controlled_rows
from service.engine.vllm_errors import VLLMValidationError
from service.engine.vllm_http import with_cancellation
from service.errors import BadRequestError
from service.pieces import Later, in_slices, json_list, json_pieces
from service.planning.plan import Plan
from service.schemas.distribution import DistributionRequest
from service.schemas.score_answer import ScoreAnswer, ScoredContinuation, StageScore
from service.schemas.sight import ScoreRequest

MAX_SCORED_TOKENS = 1 << 17
"""Tokens that one request may pass through the model: the prompt counts once a continuation."""
_AT_ONCE = 32
"""Continuations of one request in the engine at a time."""
_MEASURED = DistributionRequest(top_k=1)

router = APIRouter(route_class=SensefieldRoute, tags=["sight"])


@router.post("/v1/score", response_model=None, responses=answered(ScoreAnswer))
@with_cancellation
async def score(body: ScoreRequest, raw_request: Request) -> Response:
    """Return each token's log-probability, rank and entropy, and each continuation's loss.

    ``base`` is the model without any control; ``controlled``, if there is ``logit_control``,
    the model under all of it.
    """
    with counted("score", Visit.of(raw_request.scope)) as outcome:
        return await _answer(body, raw_request, outcome)


async def _answer(body: ScoreRequest, raw_request: Request, outcome: Outcome) -> Response:
    context = context_of(raw_request)
    check_model(body.model, raw_request)
    prompt = await prompt_tokens(context, body)
    wanted = await asyncio.to_thread(_wanted, context, body, len(prompt))
    async with AsyncExitStack() as ending:
        # Bad control is refused before the engine starts.
        plans: list[Plan] | None = None
        if body.logit_control is not None:
            control = body.logit_control
            plan = await ending.enter_async_context(planned(context, control, _MEASURED))
            plans = [_forcing(plan, token_ids, at) for at, token_ids in enumerate(wanted)]
            outcome.uses(plan.controls)
        continuations = await _scored(context, prompt, wanted, plans)
    answer: ScoreAnswer = {
        "object": "score",
        "model": context.model.name,
        "prompt_tokens": len(prompt),
        "continuations": continuations,
    }
    if accepts_arrow(raw_request.headers.get("accept", "")):
        data = await asyncio.to_thread(score_stream, answer)
        return PiecedAnswer(data, media_type=MEDIA_TYPE)
    in_pieces = {**answer, "continuations": Later(json_list(continuations))}
    return PiecedAnswer(await in_slices(json_pieces(in_pieces)))


def _forcing(plan: Plan, token_ids: list[int], at: int) -> Plan:
    """Return the plan that forces a continuation; an error names the continuation, not force."""
    try:
        return plan.forcing(token_ids)
    except ControlError as error:
        raise BadRequestError(error.message, f"continuations[{at}]") from None


async def _scored(
    context: Context, prompt: list[int], wanted: list[list[int]], plans: list[Plan] | None
) -> list[ScoredContinuation]:
    """Return the scores of all continuations, some at a time; with plans, also under control."""
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(at: int) -> ScoredContinuation:
        async with room:
            plan = None if plans is None else plans[at]
            return await _score(context, prompt, wanted[at], plan, at)

    scores = [asyncio.create_task(one(at)) for at in range(len(wanted))]
    try:
        return await asyncio.gather(*scores)
    finally:
        for each in scores:
            each.cancel()


def _wanted(context: Context, body: ScoreRequest, prompt_len: int) -> list[list[int]]:
    """Return the tokens of the continuations, all checked."""
    wanted = []
    room = context.prompts.max_tokens - prompt_len
    for at, text in enumerate(body.continuations):
        param = f"continuations[{at}]"
        if isinstance(text, str):
            token_ids = context.prompts.continuation(text, param)
        else:
            token_ids = text
            check_tokens(token_ids, len(context.vocabulary), param)
        if not 0 < len(token_ids) <= room:
            raise BadRequestError(
                f"{param} has {len(token_ids)} tokens; allowed: 1 to {room} after this prompt",
                param,
            )
        if body.logit_control is not None and len(token_ids) > MAX_FORCED:
            raise BadRequestError(
                f"{param} has {len(token_ids)} tokens; allowed: 1 to {MAX_FORCED} under control",
                param,
            )
        wanted.append(token_ids)
    total = sum(prompt_len + len(token_ids) for token_ids in wanted)
    if total > MAX_SCORED_TOKENS:
        raise BadRequestError(
            f"{total} tokens, the prompt counted for each continuation, are too many; allowed: "
            f"{MAX_SCORED_TOKENS}",
            "continuations",
        )
    return wanted


async def _score(
    context: Context, prompt: list[int], wanted: list[int], plan: Plan | None, at: int
) -> ScoredContinuation:
    rows = await base_rows(context.generating, prompt, wanted)
    scored: ScoredContinuation = {
        "index": at,
        "token_ids": wanted,
        "tokens": [context.texts.text(token) for token in wanted],
        "base": await asyncio.to_thread(_stage_score, context, rows, "base"),
    }
    if plan is not None:
        with closing(plan):
            rows = await controlled_rows(context.generating, prompt, wanted, plan.apply_to)
        try:
            check_rows(rows, plan.program)
        except VLLMValidationError as error:
            raise BadRequestError(str(error), f"continuations[{at}]") from None
        scored["controlled"] = await asyncio.to_thread(_stage_score, context, rows, "controlled")
    return scored


def _stage_score(context: Context, rows: Sequence[TokenRow], stage: str) -> StageScore:
    logprobs = _column(rows, f"{stage}_logprob")
    loss = -float(logprobs.mean(dtype=np.float64))
    ranks = _column(rows, f"{stage}_rank").astype(int).tolist()
    best = [(int(row.token_ids[0, 0]), float(row.logprobs[0, 0])) for row in rows]
    return {
        "logprobs": logprobs.tolist(),
        "ranks": ranks,
        "entropies": _column(rows, f"{stage}_entropy").tolist(),
        "best": [
            {"token_id": token, "token": context.texts.text(token), "logprob": logprob}
            for token, logprob in best
        ],
        "loss": loss,
        # exp of a loss beyond 700 nats overflows a float.
        "perplexity": exp(loss) if loss < 700 else None,
        "parts_at": next((at for at, rank in enumerate(ranks) if rank > 1), None),
    }


def _column(rows: Sequence[TokenRow], name: str) -> NDArray[np.float32]:
    return np.array([row.statistics[COLUMN[name]] for row in rows], np.float32)
