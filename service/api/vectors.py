"""``/v1/vectors``: steering vectors, put, made, looked into, deleted."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field

from service.api.route import SensefieldRoute
from service.context import Context, context_of
from service.errors import BadRequestError, TooLargeError
from service.schemas.control import StrictModel

MAX_BODY_BYTES = 64 << 20
"""A vector of 100 layers of 16,384 float64 values is 13 MB."""

router = APIRouter(route_class=SensefieldRoute, tags=["vectors"])
Name = Annotated[str, Path(description="1 to 64 of a-z, 0-9, '.', '_', '-'.")]


class FromText(StrictModel):
    """The direction of a text's tokens in the unembedding."""

    text: str = Field(min_length=1, max_length=1024)


class MakeVector(StrictModel):
    """A vector to be made by the server."""

    name: str
    from_: FromText = Field(alias="from")


@router.get("/v1/vectors")
async def list_vectors(request: Request) -> dict[str, Any]:
    """List all vectors."""
    return {"object": "list", "data": context_of(request).vectors.describe_all()}


@router.post("/v1/vectors", status_code=201)
async def make_vector(body: MakeVector, request: Request) -> dict[str, Any]:
    """Make a vector from a text."""
    context = context_of(request)
    token_ids = await asyncio.to_thread(_encode, context, body.from_.text)
    return await context.vectors.put_text(body.name, body.from_.text, token_ids)


@router.put("/v1/vectors/{name}")
async def put_vector(name: Name, request: Request) -> dict[str, Any]:
    """Store a safetensors file as a vector, in the place of what the name pointed at."""
    return await context_of(request).vectors.put(name, await _body(request))


@router.get("/v1/vectors/{name}")
async def get_vector(
    name: Name, request: Request, k: Annotated[int, Query(ge=0, le=1000)] = 10
) -> dict[str, Any]:
    """Describe a vector and the k tokens that it raises and lowers most."""
    context = context_of(request)
    description = context.vectors.describe(name)
    return description | {"nearest": await _nearest(context, name, k)}


@router.get("/v1/vectors/{name}/nearest")
async def get_nearest(
    name: Name, request: Request, k: Annotated[int, Query(ge=1, le=1000)] = 20
) -> dict[str, Any]:
    """Return the k tokens that a vector raises and lowers most in logit space."""
    return await _nearest(context_of(request), name, k)


@router.delete("/v1/vectors/{name}", status_code=204)
async def delete_vector(name: Name, request: Request) -> Response:
    """Delete a vector; running requests keep it."""
    await context_of(request).vectors.delete(name)
    return Response(status_code=204)


def _encode(context: Context, text: str) -> list[int]:
    token_ids: list[int] = context.tokenizer.encode(text, add_special_tokens=False)
    return token_ids


async def _nearest(context: Context, name: str, k: int) -> dict[str, Any]:
    found = await context.vectors.nearest(name, min(k, len(context.vocabulary)))
    texts = context.texts
    return {
        side: [
            {"token_id": token_id, "token": texts.text(token_id), "score": score}
            for token_id, score in zip(found[f"{side}_ids"], found[side], strict=True)
        ]
        for side in ("raised", "lowered")
    }


async def _body(request: Request) -> bytes:
    """Return the request's body, refusing one that is too large before it is read whole."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY_BYTES:
            raise TooLargeError(f"the body is over {MAX_BODY_BYTES} bytes", "body")
    if not data:
        raise BadRequestError("the body is empty; a safetensors file is expected", "body")
    return bytes(data)
