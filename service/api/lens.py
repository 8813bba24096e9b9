"""``POST /v1/lens``: the logit lens, each layer's distribution of the next token."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray

from logit_processors.controls.steer import SteerEntry
from service.access.visit import Visit
from service.api.arrow import accepts_arrow
from service.api.context import Context, context_of
from service.api.outcome import Outcome, counted
from service.api.route import SensefieldRoute
from service.api.rows_tap import check_rows
from service.api.sight import answered, check_model, planned, prompt_tokens
from service.api.streaming import PiecedAnswer
from service.distributions.arrow import MEDIA_TYPE
from service.distributions.sight_arrow import lens_stream
from service.distributions.tensors import PIECES
from service.engine.scoring import run
from service.engine.vllm_http import with_cancellation
from service.engine.vllm_requests import RequestOutputKind, SamplingParams
from service.errors import BadRequestError, echo
from service.pieces import Later, in_slices, json_list, json_pieces
from service.planning.plan import Plan
from service.schemas.answers import LensAnswer
from service.schemas.sight import LensRequest

MAX_CELLS = 16_384
"""Most layers times positions of one request."""
MAX_PASSED_TOKENS = 1 << 17
"""Most tokens that one request may pass through the model."""
_BYTES_PER_ENTRY = 256
"""Memory per token of the answer: its id, logprob and text, as Python objects and as JSON."""
_ROWS_AT_ONCE = 32
"""Rows that the unembedding multiplies between two steps of the engine."""

Read = dict[str, NDArray[Any]]

router = APIRouter(route_class=SensefieldRoute, tags=["sight"])


@router.post("/v1/lens", response_model=None, responses=answered(LensAnswer))
@with_cancellation
async def lens(body: LensRequest, raw_request: Request) -> Response:
    """Read the residual stream after each layer through the final norm and the unembedding.

    ``kl`` is the divergence of the final layer's distribution from each layer's, in nats. Each
    array is ``[layers, positions]``, those of ``top`` with ``k`` more.
    """
    with counted("lens", Visit.of(raw_request.scope)) as outcome:
        return await _lens(body, raw_request, outcome)


async def _lens(body: LensRequest, raw_request: Request, outcome: Outcome) -> Response:
    context = context_of(raw_request)
    check_model(body.model, raw_request)
    layers = _layers(context, body)
    prompt = await prompt_tokens(context, body)
    if len(prompt) + body.max_tokens > context.prompts.max_tokens:
        raise BadRequestError(
            f"{body.max_tokens} tokens after {len(prompt)} of the prompt; allowed: "
            f"{context.prompts.max_tokens} in all",
            "max_tokens",
        )
    if body.k > len(context.vocabulary):
        raise BadRequestError(
            f"{echo(body.k)} is more than the vocabulary; allowed: 1 to {len(context.vocabulary)}",
            "k",
        )
    async with AsyncExitStack() as ending:
        plan: Plan | None = None
        if body.logit_control is not None:
            plan = await ending.enter_async_context(planned(context, body.logit_control))
            outcome.uses(plan.controls)
        # Check before generating, with the greatest length that the text can have.
        _positions(body, len(prompt) + body.max_tokens)
        _check_cells(len(layers), _fewest(body, len(prompt)))
        text = prompt + await _generated(context, prompt, plan, body.max_tokens)
        positions = _positions(body, len(text))
        cells = _check_cells(len(layers), len(positions))
        _check_passes(context.states.passes(positions))
        claim = context.planner.budget.claim(cells * (body.k + 4) * _BYTES_PER_ENTRY, "k")
        held = ending.enter_context(ExitStack())
        held.callback(claim.release)
        steer = plan.residual if plan is not None else ()
        read = await _read(context, text, layers, positions, body.k, steer, len(prompt))
        about = _about(context, text, len(prompt), layers, positions)
        # Encoding a large answer takes a while; streams must go on meanwhile.
        if accepts_arrow(raw_request.headers.get("accept", "")):
            data = await asyncio.to_thread(lens_stream, about, read, context.texts)
            return PiecedAnswer(data, held.pop_all(), media_type=MEDIA_TYPE)
        pieces = await in_slices(_json(context, body.encoding, about, read))
        return PiecedAnswer(pieces, held.pop_all())


def _layers(context: Context, body: LensRequest) -> list[int]:
    unsupported = context.vectors.residual.support.unsupported
    if unsupported is not None:
        raise BadRequestError(f"the model's residual stream cannot be read: {unsupported}")
    count = context.model.layers
    for at, layer in enumerate(body.layers or ()):
        if layer >= count:
            raise BadRequestError(
                f"{echo(layer)} is no layer; allowed: 0 to {count - 1}", f"layers[{at}]"
            )
    return list(range(count)) if body.layers is None else sorted(set(body.layers))


def _positions(body: LensRequest, size: int) -> list[int]:
    for at, position in enumerate(body.positions or ()):
        if not -size <= position < size:
            raise BadRequestError(
                f"{echo(position)} is beyond the text of {size} tokens; allowed: {-size} to "
                f"{size - 1}",
                f"positions[{at}]",
            )
    chosen = range(size) if body.positions is None else {at % size for at in body.positions}
    return sorted(chosen)


def _fewest(body: LensRequest, prompt_len: int) -> int:
    """Return the least number of distinct positions: two may be the same once the text is known."""
    if body.positions is None:
        return prompt_len
    from_end = {at for at in body.positions if at < 0}
    return max(len(from_end), len(set(body.positions) - from_end))


def _check_cells(layers: int, positions: int) -> int:
    if layers * positions > MAX_CELLS:
        raise BadRequestError(
            f"{layers} layers at {positions} positions are too many; allowed: {MAX_CELLS} in all",
            "positions",
        )
    return layers * positions


def _check_passes(tokens: int) -> None:
    if tokens > MAX_PASSED_TOKENS:
        raise BadRequestError(
            f"{tokens} tokens would pass through the model, each part of the text with all before "
            f"it, as the server keeps no prefix cache; allowed: {MAX_PASSED_TOKENS}",
            "positions",
        )


async def _generated(
    context: Context, prompt: Sequence[int], plan: Plan | None, max_tokens: int
) -> list[int]:
    """Return the tokens generated after the prompt; an end-of-sequence token ends them earlier."""
    if not max_tokens:
        return []
    params = SamplingParams(
        temperature=0,
        max_tokens=max_tokens,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )
    if plan is not None:
        plan.apply_to(params, max_tokens)
    output = (await run(context.generating, prompt, params)).outputs[0]
    if plan is not None and plan.spec is not None:
        rows: Any = output.logprobs
        check_rows(rows, plan.program)
    return list(output.token_ids)


async def _read(
    context: Context,
    text: Sequence[int],
    layers: Sequence[int],
    positions: Sequence[int],
    k: int,
    steer: Sequence[SteerEntry],
    prompt_len: int,
) -> Read:
    """Return the layers' readings, few rows per call, so that the engine's steps run in between."""
    final = context.model.layers - 1
    captured = list(layers) if final in layers else [*layers, final]
    step = max(1, _ROWS_AT_ONCE // len(captured))
    found: list[Read] = []
    parts = context.states.take_each(text, captured, positions, steer, prompt_len)
    async for part, states in parts:
        for at in range(0, len(part), step):
            following = [text[p + 1] if p + 1 < len(text) else -1 for p in part[at : at + step]]
            data = np.ascontiguousarray(states[:, at : at + step]).tobytes()
            answers = await context.engine.collective_rpc(
                "sensefield_read_stream", None, (data, following, k)
            )
            reading = next(answer for answer in answers if answer is not None)
            if "failure" in reading:
                raise BadRequestError(f"the model has no lens: {reading['failure'].decode()}")
            found.append(_arrays(reading, len(captured), len(following)))
    joined = {name: np.concatenate([each[name] for each in found], axis=1) for name in found[0]}
    return {name: values[: len(layers)] for name, values in joined.items()}


def _arrays(reading: Mapping[str, bytes], layers: int, positions: int) -> Read:
    arrays = {}
    for name, data in reading.items():
        flat = np.frombuffer(data, np.int32 if name == "token_ids" else np.float32)
        shape = (layers, positions, -1) if name in ("token_ids", "logprobs") else (layers, -1)
        arrays[name] = flat.reshape(shape)
    return arrays


def _about(
    context: Context, text: list[int], prompt_len: int, layers: list[int], positions: list[int]
) -> dict[str, Any]:
    return {
        "object": "lens",
        "model": context.model.name,
        "vocab_size": context.planner.width,
        "prompt_tokens": prompt_len,
        "token_ids": text,
        "tokens": [context.texts.text(token) for token in text],
        "layers": layers,
        "positions": positions,
    }


def _json(context: Context, encoding: str, about: dict[str, Any], read: Read) -> Iterator[bytes]:
    """Return the answer as JSON in pieces."""

    def tensor(array: NDArray[Any]) -> Later:
        return Later(PIECES[encoding]([array]))

    text = about["token_ids"]
    following = [text[at + 1] if at + 1 < len(text) else None for at in about["positions"]]
    nothing = np.array([token is None for token in following])
    next_logprobs = np.where(nothing, np.nan, read["next_logprobs"]).astype(np.float32)
    next_ranks = np.where(nothing, 0, read["next_ranks"]).astype(np.int32)
    top: dict[str, Any] = {
        "token_ids": tensor(read["token_ids"]),
        "logprobs": tensor(read["logprobs"]),
    }
    if encoding == "json":
        top["tokens"] = Later(_texts(context, read["token_ids"]))
    readings = {
        "top": top,
        "entropy": tensor(read["entropy"]),
        "kl": tensor(read["kl"]),
        "next": {
            "token_ids": following,
            "logprobs": tensor(next_logprobs),
            "ranks": tensor(next_ranks),
        },
    }
    return json_pieces(about | readings)


def _texts(context: Context, token_ids: NDArray[Any]) -> Iterator[bytes]:
    """Yield the texts of ``[layers, positions, k]`` tokens as JSON, position by position."""
    text = context.texts.text
    rows = ((list(map(text, row.tolist())) for row in layer) for layer in token_ids)
    return json_list(Later(json_list(layer)) for layer in rows)
