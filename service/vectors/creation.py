"""Vectors that the server makes: of a text's tokens, of other vectors."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np

from service.errors import BadRequestError, RequestError, echo
from service.vectors.combine import combine
from service.vectors.content import DIRECTION, ModelFacts, VectorContent, check
from service.vectors.exchange import Made
from service.vectors.registry import VectorRegistry
from service.vectors.resident import Engine


async def from_text(text: str, token_ids: list[int], engine: Engine, model: ModelFacts) -> Made:
    """Make a vector of the direction of a text's tokens in the unembedding."""
    if not token_ids:
        raise BadRequestError(f"text {echo(text)} has no tokens", "from.text")
    answers = await engine.collective_rpc("sensefield_token_direction", None, (token_ids,))
    content = check({DIRECTION: np.frombuffer(answers[0], np.float32)}, model, "from.text")
    return Made(content, {"text": text, "token_ids": token_ids}, model.name)


async def from_combination(
    parts: Sequence[tuple[str, float]],
    orthogonal_to: str | None,
    registry: VectorRegistry,
    model: ModelFacts,
) -> Made:
    """Make a vector of stored ones: their weighted sum, orthogonal to one if that is asked.

    Args:
        parts: names and weights, at least one.
        orthogonal_to: name of the vector whose component is taken out of each layer.
        registry: that has them.
        model: that the sum must fit.

    Raises:
        NotFoundError: there is no vector of one of the names.
        ConflictError: the model cannot use one of them.
        BadRequestError: vectors of both spaces, or nothing is left.

    """
    contents = [
        await _part(name, f"from.combine[{at}].vector", registry)
        for at, (name, _) in enumerate(parts)
    ]
    told = [
        {"vector": name, "weight": weight, "sha256": content.sha256}
        for (name, weight), content in zip(parts, contents, strict=True)
    ]
    made_from: dict[str, Any] = {"combine": told}
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
    return Made(check(left, model, "from.combine"), made_from, model.name)


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
