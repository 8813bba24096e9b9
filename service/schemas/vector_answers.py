"""What the routes of vectors and tokens answer. For the documentation: nothing is made of these."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from service.schemas.control import StrictModel


class MovedToken(StrictModel):
    """A token that a vector moves."""

    token_id: int
    token: str
    score: float = Field(description="Standard deviations of logits at strength 1.")


class MovedTokens(StrictModel):
    """The tokens that a vector raises and lowers most, strongest first."""

    raised: list[MovedToken]
    lowered: list[MovedToken]


class NearestAnswer(MovedTokens):
    """In logit space, and layer by layer for a vector of the residual stream."""

    layers: dict[str, MovedTokens] = Field(
        description="By layer; none of one that moves all tokens alike."
    )


class VectorAnswer(StrictModel):
    """A stored vector; one whose name cannot be read tells only that."""

    id: str = Field(description="Its name.")
    name: str
    object: Literal["vector"]
    usable: bool = Field(description="Whether the served model can use it.")
    reason: str | None = Field(description="Why it is not usable.")
    created: int | None = Field(None, description="Seconds since 1970.")
    model: str | None = Field(None, description="That it was made with.")
    made_from: Any = Field(None, description="What it was made from, as it was asked for.")
    sha256: str | None = Field(None, description="Of its directions; its entity tag.")
    bytes: int | None = None
    space: Literal["unembedding", "residual"] | None = None
    hidden_size: int | None = None
    layers: list[int] | None = Field(None, description="Of the residual stream.")
    norm: float | None = Field(
        None, description="Euclidean, of all its directions together, in either space."
    )
    layer_norms: dict[str, float] | None = Field(None, description="By layer.")


class DescribedVector(VectorAnswer):
    """A vector and what it moves."""

    nearest: MovedTokens | None = Field(description="If it can steer logits.")


class VectorPage(StrictModel):
    """A page of vectors, by name."""

    object: Literal["list"]
    data: list[VectorAnswer]
    first_id: str | None
    last_id: str | None = Field(description="The next page's `after`.")
    has_more: bool


class TokenTextsAnswer(StrictModel):
    """The text of every token, in the order of token ids."""

    object: Literal["list"]
    data: list[str]


class NearToken(StrictModel):
    """A neighbour."""

    token_id: int
    token: str
    cosine: float


class NeighboursAnswer(StrictModel):
    """The neighbours of a text's tokens, nearest first, in each space that the model has."""

    token_ids: list[int]
    tokens: list[str]
    embedding: list[NearToken] | None = Field(None, description="Where tokens go in.")
    unembedding: list[NearToken] | None = Field(None, description="Where they come out.")
