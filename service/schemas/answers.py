"""Schemas of distributions and of the lens, for the OpenAPI only.

The server never builds these objects: it encodes their arrays piece by piece.

Shapes: ``n`` generated tokens, ``k`` entries a row, ``v`` tokens of the vocabulary.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from service.schemas.control import StrictModel


class EncodedArray(StrictModel):
    """An array as base64 of its bytes, little-endian, in C order."""

    dtype: Literal["float32", "float16", "int32"]
    shape: list[int]
    data: str = Field(description="Base64.")


Array = EncodedArray | list[Any]
"""Encoded as ``encoding`` says; in lists a log-probability of -inf is -9999.0."""


class SampledTokens(StrictModel):
    """The generated tokens, and their ranks in the whole vocabulary."""

    token_id: Array = Field(description="[n]")
    base_logprob: Array | None = Field(None, description="[n], nats, before control.")
    controlled_logprob: Array | None = Field(None, description="[n], nats, after control.")
    base_rank: Array | None = Field(None, description="[n], from 1, before control.")
    controlled_rank: Array | None = Field(None, description="[n], from 1, after control.")


class StageRows(StrictModel):
    """The rows of one stage: all of equal length, or flat, one after another, with offsets."""

    token_ids: Array | None = Field(
        None, description="[n, k], or flat; absent where a row is the whole vocabulary."
    )
    logprobs: Array = Field(
        description="[n, k], [n, v] in token-id order, or flat; nats, over the whole vocabulary."
    )
    offsets: Array | None = Field(
        None, description="[n + 1]: where each row of flat arrays begins; with `top_p`."
    )
    entropy: Array = Field(description="[n], nats, over the whole vocabulary.")


class Distribution(StrictModel):
    """The distributions of a choice's tokens; in a stream, of each event's."""

    positions: int = Field(description="n")
    top_k: int
    vocab_size: int = Field(description="v")
    sampled: SampledTokens
    base: StageRows | None = Field(
        None, description="Before control; steering of the residual stream is in it."
    )
    controlled: StageRows | None = Field(None, description="After control.")
    kl: Array | None = Field(
        None,
        description="[n]: KL(controlled || base), nats, where both stages are asked. Steering of "
        "the residual stream is in both, so not in it.",
    )
    unseen: list[str] | None = Field(
        None,
        description="Logits processors of the server's own (`--logits-processors`), whose effect "
        "neither stage shows; absent where there are none.",
    )
    prompt: Distribution | None = Field(
        None, description="Of the prompt's tokens from the second on, if asked."
    )


class LensTop(StrictModel):
    """The most likely tokens of each layer and position: [layers, positions, k]."""

    token_ids: Array
    logprobs: Array = Field(description="Nats.")
    tokens: list[list[list[str]]] | None = Field(None, description="With `encoding` json.")


class LensNext(StrictModel):
    """Each layer's logprob and rank of the token that followed."""

    token_ids: list[int | None] = Field(description="[positions]; null after the last token.")
    logprobs: Array = Field(description="[layers, positions], nats; null or NaN where none is.")
    ranks: Array = Field(description="[layers, positions], from 1; 0 where none is.")


class LensAnswer(StrictModel):
    """Each layer's distribution at each position."""

    object: Literal["lens"]
    model: str
    vocab_size: int
    prompt_tokens: int
    token_ids: list[int] = Field(description="Of the prompt and what was generated after it.")
    tokens: list[str]
    layers: list[int]
    positions: list[int]
    top: LensTop
    entropy: Array = Field(description="[layers, positions], nats.")
    kl: Array = Field(description="[layers, positions]: KL(final layer || layer), nats.")
    next: LensNext
