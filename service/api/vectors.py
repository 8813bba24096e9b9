"""``/v1/vectors``: routes that store, describe, download and delete steering vectors.

A vector's entity tag is the SHA-256 of its directions (see :mod:`service.vectors.content`).
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from service.api.context import Context, context_of
from service.api.documentation import STATUSES, statuses
from service.api.preconditions import (
    ANY,
    Preconditions,
    documented,
    preconditions_of,
    quoted,
)
from service.api.route import SensefieldRoute
from service.engine.vllm_http import with_cancellation
from service.errors import TooLargeError
from service.schemas.vector_answers import (
    DescribedVector,
    MovedToken,
    MovedTokens,
    NearestAnswer,
    VectorAnswer,
    VectorPage,
)
from service.vectors.exchange import MEDIA_TYPES, Format
from service.vectors.names import check_name

MAX_PAGE = 1000
_FILES: dict[str, Any] = {
    media: {"schema": {"type": "string", "format": "binary"}} for media in MEDIA_TYPES.values()
}
STORED: dict[int | str, dict[str, Any]] = {
    200: {"model": VectorAnswer},
    201: {"model": VectorAnswer, "description": STATUSES[201]},
}

router = APIRouter(route_class=SensefieldRoute, tags=["vectors"])
Name = Annotated[str, Path(description="1 to 64 of a-z, 0-9, '.', '_', '-'.")]


@router.get("/v1/vectors", response_model=None, responses={200: {"model": VectorPage}})
async def list_vectors(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="Vectors of a page.")] = 100,
    after: Annotated[str | None, Query(description="Start after this name.")] = None,
) -> VectorPage:
    """List vectors by name, a page at a time; ``last_id`` is the next page's ``after``."""
    if after is not None:
        check_name(after, "after")
    page, more = await context_of(request).vectors.describe_all(limit, after)
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": more,
    }


@router.put(
    "/v1/vectors/{name}",
    response_model=None,
    responses=STORED | statuses(412, 415, 507),
    openapi_extra={
        "requestBody": {"required": True, "content": _FILES},
        **documented("If-Match", "If-None-Match"),
    },
)
async def put_vector(name: Name, request: Request, response: Response) -> VectorAnswer:
    """Store a safetensors or GGUF file as a vector; it replaces a vector of that name."""
    check_name(name)
    wanted = preconditions_of(request)
    context = context_of(request)
    data = await _body(request, context.model.max_file_bytes)
    described, new = await context.vectors.put(name, data, wanted.check)
    return answer(response, described, new)


@router.get(
    "/v1/vectors/{name}",
    response_model=None,
    responses={200: {"model": DescribedVector}, **statuses(409)},
)
async def get_vector(
    name: Name,
    request: Request,
    response: Response,
    k: Annotated[int, Query(ge=0, le=1000, description="Tokens a side.")] = 10,
) -> DescribedVector:
    """Describe a vector and, if it can steer logits, the k tokens whose logits it changes most."""
    context = context_of(request)
    described = await context.vectors.describe(check_name(name))
    readable = described["usable"] and await context.vectors.steers_logits(name)
    nearest = await _nearest(context, name, k) if readable else None
    return {**answer(response, described, new=False), "nearest": nearest}


@router.get(
    "/v1/vectors/{name}/content",
    response_class=Response,
    responses={200: {"content": _FILES}, **statuses(304, 409)},
    openapi_extra=documented("If-None-Match"),
)
async def get_content(
    name: Name,
    request: Request,
    form: Annotated[Format, Query(alias="format", description="Of the file.")] = "safetensors",
) -> Response:
    """Return a vector as a safetensors file or a GGUF control vector."""
    known = preconditions_of(request).none_match or frozenset()
    data, sha256 = await context_of(request).vectors.file(check_name(name), form)
    tag = sha256 if form == "safetensors" else f"{sha256}.{form}"
    headers = {"ETag": quoted(tag)}
    if ANY in known or tag in known:
        return Response(status_code=304, headers=headers)
    headers["Content-Disposition"] = f'attachment; filename="{name}.{form}"'
    return Response(data, headers=headers, media_type=MEDIA_TYPES[form])


@router.get(
    "/v1/vectors/{name}/nearest",
    response_model=None,
    responses={200: {"model": NearestAnswer}, **statuses(409)},
)
@with_cancellation
async def get_nearest(
    name: Name,
    raw_request: Request,
    k: Annotated[int, Query(ge=1, le=1000, description="Tokens a side.")] = 20,
) -> NearestAnswer:
    """Return the k tokens that a vector raises and lowers most in logit space.

    A residual vector also has the tokens of each layer, read as if it were the last layer.
    """
    context = context_of(raw_request)
    found = await _nearest(context, check_name(name), k)
    tokens = len(context.vocabulary)
    by_layer = await context.vectors.nearest_by_layer(name, tokens, min(k, tokens))
    layers = {str(layer): _moved_tokens(context, each) for layer, each in by_layer.items()}
    return {**found, "layers": layers}


@router.delete(
    "/v1/vectors/{name}",
    status_code=204,
    responses=statuses(412),
    openapi_extra=documented("If-Match", "If-None-Match"),
)
async def delete_vector(name: Name, request: Request) -> Response:
    """Delete a vector; running requests keep it."""
    wanted: Preconditions = preconditions_of(request)
    await context_of(request).vectors.delete(name, wanted.check)
    return Response(status_code=204)


def answer(response: Response, described: VectorAnswer, new: bool) -> VectorAnswer:
    """Return a description; set the entity tag and, if the name is new, the location."""
    if (sha256 := described.get("sha256")) is not None:
        response.headers["ETag"] = quoted(sha256)
    response.status_code = 201 if new else 200
    if new:
        response.headers["Location"] = f"/v1/vectors/{described['name']}"
    return described


async def _nearest(context: Context, name: str, k: int) -> MovedTokens:
    tokens = len(context.vocabulary)
    found = await context.vectors.nearest(name, tokens, min(k, tokens))
    return _moved_tokens(context, found)


def _moved_tokens(context: Context, found: dict[str, list[Any]]) -> MovedTokens:
    def tokens(side: str) -> list[MovedToken]:
        return [
            {"token_id": token_id, "token": context.texts.text(token_id), "score": score}
            for token_id, score in zip(found[f"{side}_ids"], found[side], strict=True)
        ]

    return {"raised": tokens("raised"), "lowered": tokens("lowered")}


async def _body(request: Request, limit: int) -> bytes:
    """Return the request's body; stop reading and refuse it once it is over ``limit`` bytes."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > limit:
            raise TooLargeError(
                f"the body is over {limit} bytes, more than a vector of this model needs", "body"
            )
    return bytes(data)
