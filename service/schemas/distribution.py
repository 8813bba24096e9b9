"""The ``distribution`` field: which probabilities of each token to send, and how."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from logit_processors.row_spec import DENSE
from service.schemas.control import StrictModel

Stage = Literal["base", "controlled"]


class DistributionRequest(StrictModel):
    """The parts of each generated token's distribution to send."""

    top_k: int | Literal["all"] = Field(
        20, description="Most likely tokens to send, or all of them in token-id order."
    )
    top_p: float | None = Field(
        None, gt=0, le=1, description="Cut each position at this probability mass."
    )
    stages: list[Stage] = Field(
        default_factory=lambda: ["controlled"],  # type: ignore[arg-type]
        min_length=1,
        max_length=2,
        description="Before control (base), after it (controlled), or both. Steering of the "
        "residual stream acts inside the model: it is in both.",
    )
    dtype: Literal["float32", "float16"] = Field("float32", description="Of log-probabilities.")
    encoding: Literal["base64", "json"] = Field(
        "base64", description="Little-endian arrays in base64, or nested lists."
    )

    prompt: bool = Field(False, description="Also of the prompt's tokens, from the second on.")
    compression: Literal["lz4", "zstd"] | None = Field(
        None, description="Of the bodies of an Arrow stream."
    )

    @field_validator("top_k", mode="plain", json_schema_input_type=int | Literal["all"])
    @classmethod
    def _count_or_all(cls, value: object) -> object:
        is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if not is_count and value != "all":
            raise ValueError('allowed: an integer from 1 to the vocabulary size, or "all"')
        return value

    @field_validator("stages")
    @classmethod
    def _each_once(cls, stages: list[Stage]) -> list[Stage]:
        if len(set(stages)) < len(stages):
            raise ValueError("each stage may be named once")
        return stages

    @property
    def kept(self) -> int:
        """Return top_k as a row spec encodes it."""
        return DENSE if self.top_k == "all" else self.top_k
