"""The ``logit_control`` field, and its translation into a control program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from logit_processors.checks import ControlError
from logit_processors.controls import (
    ALWAYS,
    MAX_ADD,
    Steer,
    TextBias,
    TextSuppress,
    TokenBias,
    TokenSuppress,
    Window,
)
from logit_processors.program import MAX_ENTRIES, MAX_FORCED, Program
from logit_processors.residual import MAX_RESIDUAL_STRENGTH, Span
from service.errors import RequestError, echo


class StrictModel(BaseModel):
    """Takes what it names and nothing else; no value is converted on the quiet."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class When(StrictModel):
    """Positions of generated tokens, counted from 0."""

    from_: int | None = Field(
        0,
        alias="from",
        description="First position. Residual steering also takes negative ones, prompt tokens "
        "counted back from the last, which is position 0, and null: from the first token.",
    )
    until: int | None = Field(
        None, description="First position that is not covered; null means no end."
    )

    def to_window(self) -> Window:
        """Return the window over logits; ControlError if it covers nothing."""
        if self.from_ is None:
            raise ControlError("when.from", "null is for residual steering; allowed: 0 and up")
        return Window(self.from_, self.until)

    def to_span(self) -> Span:
        """Return the window over the residual stream; ControlError if it covers nothing."""
        return Span(self.from_, self.until)


class _TokenOrText(StrictModel):
    token_id: int | None = Field(None, ge=0, description="One token of the vocabulary.")
    text: str | None = Field(
        None, description="A text, matched on the generated text whatever its tokenization."
    )
    ignore_case: bool = Field(False, description="Fold ASCII letters when matching text.")
    when: When | None = Field(None, description="Where it applies; null means everywhere.")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.token_id is None) == (self.text is None):
            raise ValueError("exactly one of token_id and text is required")
        if self.token_id is not None and self.ignore_case:
            raise ValueError("ignore_case applies to text, not to token_id")
        return self


class BiasEntry(_TokenOrText):
    """Raise or lower a token, or every token that advances or completes a text."""

    add: float = Field(ge=-MAX_ADD, le=MAX_ADD, description="Nats before temperature.")


class SuppressEntry(_TokenOrText):
    """Give probability 0 to a token, or to every token that would complete a text."""


class SteerEntry(StrictModel):
    """Push along a stored vector: the whole distribution, or the residual stream."""

    vector: str = Field(description="Name of a stored vector.")
    strength: float = Field(
        ge=-MAX_RESIDUAL_STRENGTH,
        le=MAX_RESIDUAL_STRENGTH,
        description="At the logits: standard deviations of logits, within ±1000. In the "
        "residual stream: the factor of the vector, which is not rescaled.",
    )
    at: Literal["logits", "residual"] = Field("logits", description="Where it acts.")
    layers: list[Annotated[int, Field(ge=0)]] | None = Field(
        None,
        min_length=1,
        description="In the residual stream: decoder layers, counted from 0, after which it is "
        "added; null means all that the vector carries.",
    )
    when: When | None = Field(
        None, description="Where it applies; null means everywhere, the prompt included."
    )

    @model_validator(mode="after")
    def _layers_of_the_stream(self) -> Self:
        if self.layers is not None and self.at == "logits":
            raise ValueError('layers go with "at": "residual"')
        return self


class Force(StrictModel):
    """What the generated text begins with: tokens, or a text that is made tokens."""

    token_ids: list[Annotated[int, Field(ge=0)]] | None = Field(
        None, min_length=1, max_length=MAX_FORCED, description="Tokens of the vocabulary."
    )
    text: str | None = Field(
        None,
        min_length=1,
        max_length=4 * MAX_FORCED,
        description="A text, in the model's tokenization, without special tokens around it.",
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.token_ids is None) == (self.text is None):
            raise ValueError("exactly one of token_ids and text is required")
        return self


class LogitControl(StrictModel):
    """What to do to this request's logits: bias, then steer, then suppress, then force."""

    bias: list[BiasEntry] = Field(default_factory=list, max_length=MAX_ENTRIES)
    suppress: list[SuppressEntry] = Field(default_factory=list, max_length=MAX_ENTRIES)
    steer: list[SteerEntry] = Field(default_factory=list, max_length=MAX_ENTRIES)
    force: Force | None = Field(
        None,
        description="What is generated first, whatever the distributions say: they are told "
        "as they are. A forced token that something else forbids ends the request with an error.",
    )


def build_program(
    control: LogitControl | None,
    logit_bias: Mapping[str, float] | None,
    vocab_size: int,
    content_of: Callable[[str], str],
    encode: Callable[[str], list[int]],
) -> Program | None:
    """Translate a request's control into a program.

    Args:
        control: the ``logit_control`` field.
        logit_bias: OpenAI's own field; becomes part of the program.
        vocab_size: tokens that exist.
        content_of: SHA-256 of a vector by name; raises what the caller wants for unknown names.
        encode: the tokens of a text that goes on.

    Returns:
        The program, or None if nothing was asked for.

    Raises:
        ControlError: a value that cannot be; ``param`` is its JSON path.

    """
    groups: dict[str, list[Any]] = {
        "token_bias": [],
        "text_bias": [],
        "steer": [],
        "token_suppress": [],
        "text_suppress": [],
    }
    control = control or LogitControl()
    for key, entry, path in _entries(control):
        try:
            groups[key].append(_to_domain(entry, content_of))
        except ControlError as error:
            raise error.under(path) from None
        except RequestError as error:
            error.param = f"{path}.vector"
            raise
        _check_vocabulary(entry, vocab_size, path)
    groups["token_bias"] += _from_logit_bias(logit_bias or {}, vocab_size)
    force = () if control.force is None else _forced(control.force, vocab_size, encode)
    if not any(groups.values()) and not force:
        return None
    try:
        program = Program(**{key: tuple(entries) for key, entries in groups.items()}, force=force)
    except ControlError as error:
        own = control.bias or control.suppress or control.steer or control.force
        raise error.under("logit_control" if own else "logit_bias") from None
    always = {entry.token_id for entry in program.token_suppress if entry.when == ALWAYS}
    if len(always) >= vocab_size:
        raise ControlError("logit_control.suppress", "the whole vocabulary is suppressed")
    return program


def _forced(force: Force, vocab_size: int, encode: Callable[[str], list[int]]) -> tuple[int, ...]:
    if force.text is not None:
        token_ids = encode(force.text)
        if not token_ids:
            raise ControlError("logit_control.force.text", f"{echo(force.text)} has no tokens")
        return tuple(token_ids)
    for at, token_id in enumerate(force.token_ids or ()):
        if token_id >= vocab_size:
            raise ControlError(
                f"logit_control.force.token_ids[{at}]",
                f"{echo(token_id)} is no token; allowed: 0 to {vocab_size - 1}",
            )
    return tuple(force.token_ids or ())


def _entries(control: LogitControl) -> list[tuple[str, Any, str]]:
    found: list[tuple[str, Any, str]] = []
    for field in ("bias", "suppress"):
        for at, entry in enumerate(getattr(control, field)):
            kind = "token" if entry.token_id is not None else "text"
            found.append((f"{kind}_{field}", entry, f"logit_control.{field}[{at}]"))
    for at, steer in enumerate(control.steer):
        if steer.at == "logits":
            found.append(("steer", steer, f"logit_control.steer[{at}]"))
    return found


def _to_domain(
    entry: BiasEntry | SuppressEntry | SteerEntry, content_of: Callable[[str], str]
) -> Any:
    when = entry.when.to_window() if entry.when is not None else ALWAYS
    if isinstance(entry, SteerEntry):
        return Steer(content_of(entry.vector), entry.strength, when)
    if isinstance(entry, BiasEntry):
        if entry.token_id is not None:
            return TokenBias(entry.token_id, entry.add, when)
        return TextBias(str(entry.text), entry.add, entry.ignore_case, when)
    if entry.token_id is not None:
        return TokenSuppress(entry.token_id, when)
    return TextSuppress(str(entry.text), entry.ignore_case, when)


def _check_vocabulary(entry: Any, vocab_size: int, path: str) -> None:
    token_id = getattr(entry, "token_id", None)
    if token_id is not None and token_id >= vocab_size:
        raise ControlError(
            f"{path}.token_id", f"{echo(token_id)} is no token; allowed: 0 to {vocab_size - 1}"
        )


def _from_logit_bias(logit_bias: Mapping[str, float], vocab_size: int) -> list[TokenBias]:
    entries: dict[int, TokenBias] = {}
    for key, add in logit_bias.items():
        path = f"logit_bias[{key[:20]!r}]"
        if not key.isascii() or not key.isdigit() or len(key) > 10:
            raise ControlError(path, f"not a token id; allowed: 0 to {vocab_size - 1}")
        token_id = int(key)
        if token_id >= vocab_size:
            raise ControlError(path, f"is no token; allowed: 0 to {vocab_size - 1}")
        if token_id in entries:
            raise ControlError(path, f"token {token_id} is named twice in two spellings")
        try:
            entries[token_id] = TokenBias(token_id, add)
        except ControlError as error:
            raise ControlError(path, error.message) from None
    return list(entries.values())
