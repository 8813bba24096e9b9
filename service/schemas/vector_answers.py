"""The answers of the routes of vectors and tokens."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

_WHOLE = ConfigDict(extra="forbid")
"""An answer has no other fields."""


@with_config(_WHOLE)
class MovedToken(TypedDict):
    """A token whose logit a vector changes."""

    token_id: int
    token: str
    score: Annotated[float, Field(description="Standard deviations of logits at strength 1.")]


@with_config(_WHOLE)
class MovedTokens(TypedDict):
    """The tokens that a vector raises and lowers most, strongest first."""

    raised: list[MovedToken]
    lowered: list[MovedToken]


@with_config(_WHOLE)
class NearestAnswer(MovedTokens):
    """In logit space, and layer by layer for a vector of the residual stream."""

    layers: Annotated[
        dict[str, MovedTokens],
        Field(description="By layer; none of one that moves all tokens alike."),
    ]


class SummaryAnswer(TypedDict):
    """A vector's content in numbers."""

    space: Literal["unembedding", "residual"]
    hidden_size: int
    layers: list[int]
    norm: float
    layer_norms: dict[str, float]


@with_config(_WHOLE)
class VectorAnswer(TypedDict):
    """A stored vector; if its name's file cannot be read, only that is reported."""

    id: Annotated[str, Field(description="Its name.")]
    name: str
    object: Literal["vector"]
    usable: Annotated[bool, Field(description="Whether the served model can use it.")]
    reason: Annotated[str | None, Field(description="Why it is not usable.")]
    created: NotRequired[Annotated[int | None, Field(description="Seconds since 1970.")]]
    model: NotRequired[Annotated[str | None, Field(description="That it was made with.")]]
    made_from: NotRequired[
        Annotated[Any, Field(description="What it was made from, as it was asked for.")]
    ]
    sha256: NotRequired[
        Annotated[str | None, Field(description="Of its directions; its entity tag.")]
    ]
    bytes: NotRequired[int | None]
    space: NotRequired[Literal["unembedding", "residual"] | None]
    hidden_size: NotRequired[int | None]
    layers: NotRequired[Annotated[list[int] | None, Field(description="Of the residual stream.")]]
    norm: NotRequired[
        Annotated[
            float | None,
            Field(description="Euclidean, of all its directions together, in either space."),
        ]
    ]
    layer_norms: NotRequired[Annotated[dict[str, float] | None, Field(description="By layer.")]]


@with_config(_WHOLE)
class DescribedVector(VectorAnswer):
    """A vector and the tokens that it raises and lowers most."""

    nearest: Annotated[MovedTokens | None, Field(description="If it can steer logits.")]


@with_config(_WHOLE)
class VectorPage(TypedDict):
    """A page of vectors, by name."""

    object: Literal["list"]
    data: list[VectorAnswer]
    first_id: str | None
    last_id: Annotated[str | None, Field(description="The next page's `after`.")]
    has_more: bool


@with_config(_WHOLE)
class TokenTextsAnswer(TypedDict):
    """The text of every token, in the order of token ids."""

    object: Literal["list"]
    data: list[str]


@with_config(_WHOLE)
class NearToken(TypedDict):
    """A neighbour."""

    token_id: int
    token: str
    cosine: float


@with_config(_WHOLE)
class NeighboursAnswer(TypedDict):
    """The neighbours of a text's tokens, nearest first, in each space that the model has."""

    token_ids: list[int]
    tokens: list[str]
    embedding: NotRequired[
        Annotated[list[NearToken] | None, Field(description="Where tokens go in.")]
    ]
    unembedding: NotRequired[
        Annotated[list[NearToken] | None, Field(description="Where they come out.")]
    ]
