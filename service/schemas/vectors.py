"""``POST /v1/vectors``: what a vector is to be made from."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from service.schemas.control import StrictModel

MAX_PARTS = 64
MAX_WEIGHT = 1000.0
KINDS = ("text", "combine")


class Part(StrictModel):
    """One vector of a weighted sum."""

    vector: str = Field(description="Name of a stored vector.")
    weight: float = Field(1.0, ge=-MAX_WEIGHT, le=MAX_WEIGHT, description="What it is times.")


class Source(StrictModel):
    """Exactly one kind of source, with what belongs to it."""

    text: str | None = Field(
        None,
        min_length=1,
        max_length=1024,
        description="The direction of this text's tokens in the unembedding.",
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
        return self


class MakeVector(StrictModel):
    """A vector to be made by the server."""

    name: str = Field(description="1 to 64 of a-z, 0-9, '.', '_', '-'.")
    from_: Source = Field(alias="from")
    replace: bool = Field(False, description="Take the name's place if it exists; else 409.")
