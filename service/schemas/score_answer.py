"""The answer of ``/v1/score``."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

_WHOLE = ConfigDict(extra="forbid")
"""An answer has no other fields."""


@with_config(_WHOLE)
class BestToken(TypedDict):
    """The most likely token of a position."""

    token_id: int
    token: str
    logprob: Annotated[float, Field(description="Nats.")]


@with_config(_WHOLE)
class StageScore(TypedDict):
    """The scores of a continuation of n tokens in one stage."""

    logprobs: Annotated[list[float], Field(description="[n], nats.")]
    ranks: Annotated[list[int], Field(description="[n], from 1.")]
    entropies: Annotated[list[float], Field(description="[n], nats.")]
    best: Annotated[list[BestToken], Field(description="[n]")]
    loss: Annotated[float, Field(description="Mean negative log-likelihood a token, nats.")]
    perplexity: Annotated[
        float | None, Field(description="exp(loss); null where no float holds it.")
    ]
    parts_at: Annotated[
        int | None,
        Field(
            description="First position whose token is not the most likely one; null if none is."
        ),
    ]


@with_config(_WHOLE)
class ScoredContinuation(TypedDict):
    """The scores of a continuation."""

    index: int
    token_ids: list[int]
    tokens: list[str]
    base: Annotated[StageScore, Field(description="Of the unsteered model, without any control.")]
    controlled: NotRequired[
        Annotated[StageScore | None, Field(description="With `logit_control`.")]
    ]


@with_config(_WHOLE)
class ScoreAnswer(TypedDict):
    """The continuations in the order of the request."""

    object: Literal["score"]
    model: str
    prompt_tokens: int
    continuations: list[ScoredContinuation]
