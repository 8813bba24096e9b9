"""What a request wants to see of its rows of logits. Import-light: no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from logit_processors.control import Form

PROMPT_KEY = "prompt_rows"
"""Where a request carries the row spec of its prompt, beside that of its tokens."""
PROMPT_FROM_KEY = "prompt_rows_from"
"""Where it carries the first of them that it wants, 0 if it is not there."""
DENSE = -1
"""``top_k`` of a request for the whole vocabulary in token-id order."""


class RowSpec(Form):
    """What is kept of every generated token's row.

    ``base`` is the model's own distribution, ``controlled`` the one after the program.
    With neither, a row says only whether its program and masks left it a token.
    """

    top_k: Annotated[int, Field(ge=DENSE)] = 0
    base: bool = False
    controlled: bool = False
    half: bool = False

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages kept, in the order in which rows carry them."""
        return ("base",) * self.base + ("controlled",) * self.controlled


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
"""Values of ``alive``: a token is left; none is; a vector or pattern was not at hand.

Lower ones are codes of plugins that failed (``logit_processors.registry``)."""


class TokenRow(NamedTuple):
    """What was kept of one generated token's row."""

    token_ids: NDArray[np.int32]
    """``[stages, k]``, k = 0 for a dense row."""
    logprobs: NDArray[np.floating]
    """``[stages, k or vocab]``, nats."""
    statistics: NDArray[np.float32]
    """``[8]``, see :data:`STATISTICS`."""
