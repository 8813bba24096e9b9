"""Vectors that the server makes: from a text's tokens, contrasting prompts or other vectors."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from service.errors import BadRequestError, RequestError, echo
from service.schemas.vectors import Contrast
from service.vectors.combine import combine
from service.vectors.content import DIRECTION, ModelFacts, VectorContent, check
from service.vectors.contrast import METHODS
from service.vectors.exchange import NewVector
from service.vectors.registry import VectorRegistry
from service.vectors.resident import Engine, first_answer

MAX_CONTRAST_BYTES = 1 << 30
"""Most bytes of residual streams that one contrast keeps."""
_KEPT_PROMPT_BYTES = 16_384
"""Most bytes of a contrast's prompts, as JSON, in a vector's origin; of more, their SHA-256."""
_PAUSE = 0.01
"""Seconds between parts of the workers' preparation, in which they run steps."""
Progress = Callable[[int, int], None]
"""Called with the number of prompts done and of all prompts."""


class States(Protocol):
    """Captures residual streams of prompts: :class:`service.engine.prompt_states.PromptStates`."""

    def take(
        self, prompts: Sequence[Sequence[int]], layers: Sequence[int], last: int
    ) -> AsyncIterator[tuple[int, NDArray[np.float32]]]:
        """Yield each prompt's index and its residual stream ``[layers, hidden]``."""


async def from_text(
    text: str, token_ids: list[int], engine: Engine, model: ModelFacts
) -> NewVector:
    """Make a vector from the direction of a text's tokens in the unembedding."""
    _check_tokens(text, token_ids)
    while not all(await engine.collective_rpc("sensefield_prepare_directions", None, ())):
        await asyncio.sleep(_PAUSE)
    answers = await engine.collective_rpc("sensefield_token_direction", None, (token_ids,))
    direction = np.frombuffer(first_answer(answers), np.float32)
    content = check({DIRECTION: direction}, model, "from.text")
    return NewVector(content, {"text": text, "token_ids": token_ids}, model.name)


async def from_embedding(
    text: str, token_ids: list[int], engine: Engine, model: ModelFacts, vocab_size: int
) -> NewVector:
    """Make a residual-stream vector, at layer 0, from a text's tokens in the embedding.

    It is the mean of their embeddings minus the mean of all embeddings: the direction of these
    tokens where the residual stream begins.
    """
    _check_tokens(text, token_ids)
    answers = await engine.collective_rpc(
        "sensefield_embedding_direction", None, (token_ids, vocab_size)
    )
    direction = np.frombuffer(first_answer(answers), np.float32)
    content = check({"layer.0": direction}, model, "from.text")
    made_from = {"text": text, "token_ids": token_ids, "space": "embedding"}
    return NewVector(content, made_from, model.name)


def _check_tokens(text: str, token_ids: list[int]) -> None:
    if not token_ids:
        raise BadRequestError(f"text {echo(text)} has no tokens", "from.text")


async def from_contrast(
    contrast: Contrast,
    positive: Sequence[Sequence[int]],
    negative: Sequence[Sequence[int]],
    states: States,
    model: ModelFacts,
    progress: Progress,
) -> NewVector:
    """Make a vector from the difference of the sides' residual streams.

    Args:
        contrast: the request's field.
        positive: token ids of its positive prompts.
        negative: token ids of its negative prompts.
        states: runs the prompts.
        model: the served model.
        progress: called after each prompt.

    Raises:
        BadRequestError: the model does not have a layer, or the sides do not differ.

    """
    layers = list(range(model.layers)) if contrast.layers is None else sorted(contrast.layers)
    if layers[-1] >= model.layers:
        raise BadRequestError(
            f"layer {layers[-1]} does not exist; allowed: 0 to {model.layers - 1}",
            "from.contrast.layers",
        )
    prompts = [*positive, *negative]
    size = 4 * len(prompts) * len(layers) * model.hidden_size
    if size > MAX_CONTRAST_BYTES:
        raise BadRequestError(
            f"{len(prompts)} prompts at {len(layers)} layers take {size} bytes; allowed: "
            f"{MAX_CONTRAST_BYTES}. Give fewer prompts, or layers",
            "from.contrast",
        )
    streams = np.zeros((len(prompts), len(layers), model.hidden_size), np.float32)
    done = 0
    progress(done, len(prompts))
    async for at, stream in states.take(prompts, layers, contrast.last):
        streams[at] = stream
        done += 1
        progress(done, len(prompts))
    sides = streams[: len(positive)], streams[len(positive) :]
    directions = await asyncio.to_thread(METHODS[contrast.method], *sides)
    same = [layer for layer, v in zip(layers, directions, strict=True) if not v.any()]
    if same:
        raise BadRequestError(
            f"the sides do not differ after layers {echo(same[:10])}", "from.contrast"
        )
    tensors = {f"layer.{layer}": v for layer, v in zip(layers, directions, strict=True)}
    content = await asyncio.to_thread(check, tensors, model, "from.contrast")
    return NewVector(content, {"contrast": _provenance(contrast)}, model.name)


def _provenance(contrast: Contrast) -> dict[str, Any]:
    """Return a contrast as a part of the vector's origin."""
    prompts = contrast.model_dump(include={"positive", "negative"})
    written = orjson.dumps(prompts)
    how = contrast.model_dump(include={"method", "last"})
    if len(written) <= _KEPT_PROMPT_BYTES:
        return {**how, **prompts}
    digest = hashlib.sha256(written).hexdigest()
    return {**how, "prompts": len(contrast.positive + contrast.negative), "sha256": digest}


async def from_combination(
    parts: Sequence[tuple[str, float]],
    orthogonal_to: str | None,
    registry: VectorRegistry,
    model: ModelFacts,
) -> NewVector:
    """Make the weighted sum of stored vectors, optionally orthogonal to another vector.

    Args:
        parts: names and weights, at least one.
        orthogonal_to: name of the vector whose component is removed from each layer.
        registry: the registry with the vectors.
        model: the served model.

    Raises:
        NotFoundError: a vector does not exist.
        ConflictError: the model cannot use a vector.
        BadRequestError: the vectors are of both spaces, or the sum is zero.

    """
    contents = [
        await _part(name, f"from.combine[{at}].vector", registry)
        for at, (name, _) in enumerate(parts)
    ]
    summed = [
        {"vector": name, "weight": weight, "sha256": content.sha256}
        for (name, weight), content in zip(parts, contents, strict=True)
    ]
    made_from: dict[str, Any] = {"combine": summed}
    for at, content in enumerate(contents):
        _check_space(content, contents[0], f"from.combine[{at}].vector")
    other = None
    if orthogonal_to is not None:
        other = await _part(orthogonal_to, "from.orthogonal_to", registry)
        _check_space(other, contents[0], "from.orthogonal_to")
        made_from["orthogonal_to"] = {"vector": orthogonal_to, "sha256": other.sha256}
    weighted = [
        (content.tensors, weight) for content, (_, weight) in zip(contents, parts, strict=True)
    ]
    left = await asyncio.to_thread(combine, weighted, None if other is None else other.tensors)
    if not left:
        raise BadRequestError("nothing is left: the result is zero", "from.combine")
    return NewVector(check(left, model, "from.combine"), made_from, model.name)


async def _part(name: str, param: str, registry: VectorRegistry) -> VectorContent:
    try:
        return await registry.read(name)
    except RequestError as error:
        error.param = param
        raise


def _check_space(content: VectorContent, first: VectorContent, param: str) -> None:
    if content.residual != first.residual:
        raise BadRequestError(
            f"the vector is of the {content.summary.space} space and the first one of the "
            f"{first.summary.space} space: they cannot be combined",
            param,
        )
