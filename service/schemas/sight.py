"""The requests of ``/v1/score`` and ``/v1/lens``: a prompt, and what to measure on it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from logit_processors.checks import ControlError
from logit_processors.control import Phase
from service.schemas.control import LogitControl, StrictModel
from service.schemas.vectors import PromptMessage

MAX_CONTINUATIONS = 256

Text = Annotated[
    Annotated[str, Field(min_length=1), Tag("<text>")]
    | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1), Tag("<tokens>")],
    Discriminator(lambda value: "<text>" if isinstance(value, str) else "<tokens>"),
]


class Prompted(StrictModel):
    """A prompt, as text, tokens or chat, and the control under which it runs."""

    model: str | None = Field(None, description="Name of the served model.")
    prompt: Text | None = Field(None, description="A text, taken as it is, or token ids.")
    messages: list[PromptMessage] | None = Field(
        None,
        min_length=1,
        description="A chat; an assistant's last message is left open, after any other one the "
        "assistant begins.",
    )
    logit_control: LogitControl | None = None

    @model_validator(mode="after")
    def _one_prompt(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("exactly one of prompt and messages is required")
        return self


class ScoreRequest(Prompted):
    """Continuations to score."""

    continuations: list[Text] = Field(
        min_length=1,
        max_length=MAX_CONTINUATIONS,
        description="Texts, in the model's tokenization without special tokens, or token ids.",
    )

    @model_validator(mode="after")
    def _forces_nothing_else(self) -> Self:
        control = self.logit_control
        if control is not None and any(k.phase is Phase.FORCE for k, _, _ in control.entries()):
            raise ControlError("logit_control.force", "the continuations are what is forced here")
        return self


class LensRequest(Prompted):
    """Layers and positions at which the residual stream is read."""

    max_tokens: int = Field(
        0, ge=0, description="Tokens to generate first, greedily and under control, and read too."
    )
    layers: list[Annotated[int, Field(ge=0)]] | None = Field(
        None,
        min_length=1,
        description="Decoder layers, counted from 0, after which it is read; null means all.",
    )
    positions: list[int] | None = Field(
        None,
        min_length=1,
        description="Places in the text from 0, negative ones from its end; null means all.",
    )
    k: int = Field(5, ge=1, description="Most likely tokens to return, up to the vocabulary.")
    encoding: Literal["json", "base64"] = Field(
        "json", description="Nested lists, or little-endian arrays in base64."
    )
