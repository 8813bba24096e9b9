"""The request of ``POST /v1/vectors``: the source of a new vector."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from logit_processors.residual import MAX_CAPTURED
from service.schemas.control import StrictModel

MAX_PARTS = 64
MAX_PROMPTS = 512
MAX_WEIGHT = 1000.0
KINDS = ("text", "contrast", "combine")


class Part(StrictModel):
    """One vector of a weighted sum."""

    vector: str = Field(description="Name of a stored vector.")
    weight: float = Field(1.0, ge=-MAX_WEIGHT, le=MAX_WEIGHT, description="Its factor in the sum.")


class PromptMessage(StrictModel):
    """One message of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


Prompt = Annotated[
    Annotated[str, Field(min_length=1), Tag("<text>")]
    | Annotated[list[PromptMessage], Field(min_length=1), Tag("<chat>")],
    Discriminator(lambda value: "<text>" if isinstance(value, str) else "<chat>"),
]
Side = Annotated[list[Prompt], Field(min_length=1, max_length=MAX_PROMPTS)]


class Contrast(StrictModel):
    """Two sides of prompts; the vector points from the negative to the positive one."""

    positive: Side = Field(description="Texts, taken as they are, or chats.")
    negative: Side = Field(description="Texts or chats; for pca as many, pair by pair.")
    layers: list[Annotated[int, Field(ge=0)]] | None = Field(
        None,
        min_length=1,
        description="Decoder layers, counted from 0, after which the residual stream is taken; "
        "null means all.",
    )
    method: Literal["mean_difference", "pca"] = Field(
        "mean_difference",
        description="The difference of the sides' means, or the first principal axis of the "
        "pairs' differences, as long as the pairs differ along it.",
    )
    last: int = Field(
        1, ge=1, le=MAX_CAPTURED, description="The mean over so many last tokens of a prompt."
    )

    @model_validator(mode="after")
    def _two_sides(self) -> Self:
        if self.method == "pca" and len(self.positive) != len(self.negative):
            raise ValueError(
                f"pca takes pairs: {len(self.positive)} positive and {len(self.negative)} "
                "negative prompts are none"
            )
        if self.layers is not None and len(set(self.layers)) < len(self.layers):
            raise ValueError("a layer is named twice")
        sides = [sorted(map(repr, side)) for side in (self.positive, self.negative)]
        if sides[0] == sides[1]:
            raise ValueError("the two sides are the same prompts: they do not differ")
        return self


class Source(StrictModel):
    """Exactly one kind of source, with its options."""

    text: str | None = Field(
        None,
        min_length=1,
        max_length=1024,
        description="The direction of this text's tokens in the unembedding.",
    )
    space: Literal["unembedding", "embedding"] = Field(
        "unembedding",
        description="With text: where the direction is taken. In the embedding it is a vector "
        "of the residual stream, at layer 0.",
    )
    contrast: Contrast | None = Field(
        None, description="What prompts of one side have in the residual stream beyond the other."
    )
    combine: list[Part] | None = Field(
        None,
        min_length=1,
        max_length=MAX_PARTS,
        description="The weighted sum of vectors of one space, layer by layer; a vector "
        "without a layer adds nothing there.",
    )
    orthogonal_to: str | None = Field(
        None,
        description="With combine: name of a vector whose component is taken out of each layer "
        "that both have.",
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum(getattr(self, kind) is not None for kind in KINDS) != 1:
            raise ValueError(f"exactly one of {', '.join(KINDS)} is required")
        if self.orthogonal_to is not None and self.combine is None:
            raise ValueError("orthogonal_to goes with combine")
        if self.space == "embedding" and self.text is None:
            raise ValueError("space goes with text")
        return self


class MakeVector(StrictModel):
    """A vector to be made by the server."""

    name: str = Field(description="1 to 64 of a-z, 0-9, '.', '_', '-'.")
    from_: Source = Field(alias="from")
    stream: bool = Field(
        False,
        description="Answer with server-sent events: progress, then the vector or an error.",
    )
    replace: bool = Field(
        False,
        description="Replace the vector of that name; without it, a name that exists is a 409.",
    )
