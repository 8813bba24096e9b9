"""``POST /v1/vectors``: vectors that the server makes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

from fastapi import APIRouter, Request, Response

from service.access.dialect import EVENTS, sse_event
from service.api.context import Context, context_of
from service.api.documentation import STATUSES, statuses
from service.api.preconditions import documented, preconditions_of
from service.api.route import SensefieldRoute
from service.api.streaming import PiecedStream
from service.api.vectors import STORED, answer
from service.engine.vllm_http import with_cancellation
from service.errors import BadRequestError, ConflictError, RequestError, echo, error_body
from service.metrics import REJECTED
from service.schemas.vector_answers import VectorAnswer
from service.schemas.vectors import Contrast, MakeVector, Source
from service.vectors.creation import (
    Progress,
    from_combination,
    from_contrast,
    from_embedding,
    from_text,
)
from service.vectors.exchange import NewVector
from service.vectors.names import check_name
from service.vectors.store import Entry, Guard, StoredName

_PROGRESS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": VectorAnswer,
        "description": STATUSES[200],
        "content": {EVENTS: {}},
    }
}

MAX_CONTRAST_TOKENS = 1 << 17
"""Most tokens of all prompts of both sides."""

router = APIRouter(route_class=SensefieldRoute, tags=["vectors"])


@router.post(
    "/v1/vectors",
    response_model=None,
    status_code=201,
    responses=STORED | _PROGRESS | statuses(404, 409, 412, 507),
    openapi_extra=documented("If-Match", "If-None-Match"),
)
@with_cancellation
async def make_vector(body: MakeVector, raw_request: Request, response: Response) -> Any:
    """Make a vector of a text, of contrasting prompts, or of other vectors.

    A name that exists is a 409, unless ``replace`` is true or If-Match names its content.
    With ``stream``, events report the progress; the last one holds the vector or an error.
    """
    context = context_of(raw_request)
    check_name(body.name)
    guard = _guard(body, raw_request)
    # Checked before anything is computed, and again when the vector is stored.
    await context.vectors.check(body.name, guard)
    if body.stream:
        events = _events(lambda progress: _make_and_keep(context, body, guard, progress))
        return PiecedStream(events, EVENTS)
    described, new = await _make_and_keep(context, body, guard, lambda _done, _total: None)
    return answer(response, described, new)


def _guard(body: MakeVector, request: Request) -> Guard:
    wanted = preconditions_of(request)
    may_replace = body.replace or wanted.match is not None

    def guard(entry: Entry | None) -> None:
        wanted.check(entry)
        if isinstance(entry, StoredName) and not may_replace:
            raise ConflictError(
                f"the vector {echo(body.name)} exists; set replace to take its place", "name"
            )

    return guard


async def _make_and_keep(
    context: Context, body: MakeVector, guard: Guard, progress: Progress
) -> tuple[VectorAnswer, bool]:
    made = await _make(context, body.from_, progress)
    return await context.vectors.keep(body.name, made, guard)


async def _make(context: Context, source: Source, progress: Progress) -> NewVector:
    model = context.model
    if source.text is not None:
        token_ids = await asyncio.to_thread(context.prompts.continuation, source.text)
        if source.space == "embedding":
            size = len(context.vocabulary)
            return await from_embedding(source.text, token_ids, context.engine, model, size)
        return await from_text(source.text, token_ids, context.engine, model)
    if source.contrast is not None:
        return await _contrast(context, source.contrast, progress)
    parts = [(part.vector, part.weight) for part in source.combine or []]
    return await from_combination(parts, source.orthogonal_to, context.vectors, model)


async def _contrast(context: Context, contrast: Contrast, progress: Progress) -> NewVector:
    unsupported = context.vectors.residual.support.unsupported
    if unsupported is not None:
        raise BadRequestError(
            f"the model's residual stream cannot be read: {unsupported}", "from.contrast"
        )

    def encode(side: str) -> list[list[int]]:
        prompts = contrast.model_dump(include={side})[side]
        return [
            context.prompts.encode(prompt, f"from.contrast.{side}[{at}]")
            for at, prompt in enumerate(prompts)
        ]

    positive, negative = await asyncio.to_thread(lambda: (encode("positive"), encode("negative")))
    total = sum(map(len, positive)) + sum(map(len, negative))
    if total > MAX_CONTRAST_TOKENS:
        raise BadRequestError(
            f"prompts of {total} tokens are too many; allowed: {MAX_CONTRAST_TOKENS} in all",
            "from.contrast",
        )
    return await from_contrast(
        contrast, positive, negative, context.states, context.model, progress
    )


async def _events(make: Callable[[Progress], Any]) -> AsyncGenerator[bytes, None]:
    """Yield progress events, then the vector or an error; a disconnect cancels the work."""
    reports: asyncio.Queue[tuple[int, int] | None] = asyncio.Queue()
    task = asyncio.ensure_future(make(lambda done, total: reports.put_nowait((done, total))))
    task.add_done_callback(lambda _: reports.put_nowait(None))
    try:
        while (progress := await reports.get()) is not None:
            done, total = progress
            yield sse_event({"object": "vector.progress", "done": done, "total": total})
        try:
            described, _ = await task
            yield sse_event(described)
            yield b"data: [DONE]\n\n"
        except RequestError as error:
            REJECTED.labels(str(error.status), error.kind).inc()
            yield sse_event(error.to_body())
        except Exception:
            yield sse_event(error_body("the vector could not be made", "server_error"))
            raise
    finally:
        task.cancel()
