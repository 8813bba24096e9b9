"""``/v1/tokens``: what the model's own tokens mean to it."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from service.api.context import Context, context_of
from service.api.prompts import check_token
from service.api.route import SensefieldRoute
from service.engine.vllm_http import with_cancellation
from service.errors import BadRequestError, echo
from service.schemas.vector_answers import NearToken, NeighboursAnswer, TokenTextsAnswer

router = APIRouter(route_class=SensefieldRoute, tags=["tokens"])


@router.get("/v1/tokens", response_model=None, responses={200: {"model": TokenTextsAnswer}})
async def list_tokens(request: Request) -> Response:
    """Return the text of every token, in the order of token ids.

    Bytes of an incomplete character are shown as U+FFFD.
    """
    texts = context_of(request).texts
    data = await asyncio.to_thread(lambda: texts.listed)
    return Response(data, media_type="application/json")


@router.get("/v1/tokens/nearest", response_model=None, responses={200: {"model": NeighboursAnswer}})
@with_cancellation
async def get_nearest(
    raw_request: Request,
    text: Annotated[str | None, Query(max_length=256, description="Its tokens' mean.")] = None,
    token_id: Annotated[int | None, Query(ge=0, description="One token.")] = None,
    k: Annotated[int, Query(ge=1, le=1000, description="Tokens of each space.")] = 20,
) -> NeighboursAnswer:
    """Return the tokens nearest to a text or token, by cosine, in embedding and unembedding."""
    context = context_of(raw_request)
    token_ids = await asyncio.to_thread(_token_ids, context, text, token_id)
    size = len(context.vocabulary)
    answers = await context.engine.collective_rpc(
        "sensefield_token_neighbours", None, (token_ids, size, k)
    )
    spaces = {space: found for answer in answers for space, found in answer.items()}
    neighbours: NeighboursAnswer = {
        "token_ids": token_ids,
        "tokens": [context.texts.text(each) for each in token_ids],
    }
    if (found := spaces.get("embedding")) is not None:
        neighbours["embedding"] = _near(context, found)
    if (found := spaces.get("unembedding")) is not None:
        neighbours["unembedding"] = _near(context, found)
    return neighbours


def _near(context: Context, found: dict[str, list[Any]]) -> list[NearToken]:
    return [
        {"token_id": each, "token": context.texts.text(each), "cosine": cosine}
        for each, cosine in zip(found["token_ids"], found["cosines"], strict=True)
    ]


def _token_ids(context: Context, text: str | None, token_id: int | None) -> list[int]:
    if (text is None) == (token_id is None):
        raise BadRequestError("exactly one of text and token_id is required", "text")
    if token_id is not None:
        check_token(token_id, len(context.vocabulary), "token_id")
        return [token_id]
    assert text is not None
    token_ids = context.prompts.continuation(text)
    if not token_ids:
        raise BadRequestError(f"text {echo(text)} has no tokens", "text")
    return token_ids
