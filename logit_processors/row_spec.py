"""What a request wants to see of its rows of logits. Import-light: no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

PROMPT_KEY = "prompt_rows"
"""Where a request carries the row spec of its prompt, beside that of its tokens."""
PROMPT_FROM_KEY = "prompt_rows_from"
"""Where it carries the first of them that it wants, 0 if it is not there."""
DENSE = -1
"""``top_k`` of a request for the whole vocabulary in token-id order."""


@dataclass(frozen=True, slots=True)
class RowSpec:
    """What is kept of every generated token's row.

    ``base`` is the model's own distribution, ``controlled`` the one after the program.
    With neither, a row tells only whether its program and masks left it a token.
    """

    top_k: int = 0
    base: bool = False
    controlled: bool = False
    half: bool = False

    def __post_init__(self) -> None:
        if self.top_k < DENSE:
            raise ValueError(f"top_k {self.top_k!r} is out of range; allowed: -1 (all) and up")

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages kept, in the order in which rows carry them."""
        return ("base",) * self.base + ("controlled",) * self.controlled

    def to_wire(self) -> dict[str, Any]:
        """Return a dict that msgpack carries."""
        return asdict(self)

    @classmethod
    def from_wire(cls, wire: object) -> Self:
        """Build the spec that :meth:`to_wire` described; ValueError if it is not one."""
        try:
            return cls(**wire)  # type: ignore[arg-type]
        except TypeError as error:
            raise ValueError(f"not a row spec: {error}") from None


def masks_of(sampling_params: Any) -> tuple[str, ...]:
    """Return the fields of vLLM's ``SamplingParams`` that may leave a row no token.

    A grammar may by itself, the others only together: none if there are too few.
    """
    named = {
        "allowed_token_ids": sampling_params.allowed_token_ids is not None,
        "bad_words": bool(sampling_params.bad_words),
        "min_tokens": sampling_params.min_tokens > 0,
        "structured_outputs": sampling_params.structured_outputs is not None,
    }
    masks = tuple(name for name, is_there in named.items() if is_there)
    return masks if named["structured_outputs"] or len(masks) > 1 else ()


@dataclass(frozen=True, slots=True)
class PlainLogprobs:
    """The engine's own ``logprobs=k``, for routes that read the engine's own format.

    ``token_ids`` instead of a top-k where a request names the tokens it wants scored.
    """

    top_k: int
    token_ids: tuple[int, ...] = ()


STATISTICS = (
    "alive",
    "base_logprob",
    "controlled_logprob",
    "base_rank",
    "controlled_rank",
    "base_entropy",
    "controlled_entropy",
    "kl",
)
"""Columns of the float32 statistics that every kept row carries; ranks are exact in it."""
COLUMN = {name: at for at, name in enumerate(STATISTICS)}
"""Where each of the statistics stands."""

ALIVE, EXHAUSTED, BROKEN = 1.0, 0.0, -1.0
"""Values of ``alive``: a token is left; none is; a vector or pattern was not at hand."""


class TokenRow(NamedTuple):
    """What was kept of one generated token's row."""

    token_ids: NDArray[np.int32]
    """``[stages, k]``, k = 0 for a dense row."""
    logprobs: NDArray[np.floating]
    """``[stages, k or vocab]``, nats."""
    statistics: NDArray[np.float32]
    """``[8]``, see :data:`STATISTICS`."""
