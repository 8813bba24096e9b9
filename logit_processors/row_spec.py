"""The values to keep of a request's rows of logits. Import-light: no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from logit_processors.control import Form

PROMPT_KEY = "prompt_rows"
"""Key of the row spec of a request's prompt, beside that of its tokens."""
PROMPT_FROM_KEY = "prompt_rows_from"
"""Key of the first wanted row of the prompt, by default 0."""
DENSE = -1
"""``top_k`` for the whole vocabulary in token-id order."""


class RowSpec(Form):
    """The values to keep of every generated token's row.

    ``base`` is the model's own distribution, ``controlled`` the one after the program. With
    neither, a row has only its status: whether its program and masks left it a token.
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

    A grammar may do so alone, the others only together: empty if there are too few.
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

    ``token_ids`` are the tokens to score, for a request that names them instead of a top-k.
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
"""Columns of every kept row's float32 statistics; ranks are exact in float32."""
COLUMN = {name: at for at, name in enumerate(STATISTICS)}
"""The column index of each of the statistics."""

ALIVE, EXHAUSTED, BROKEN = 1.0, 0.0, -1.0
"""Values of ``alive``: a token is left; no token is left; a vector or pattern was missing.

Lower values are codes of plugins that failed (``logit_processors.registry``)."""


class TokenRow(NamedTuple):
    """The kept values of one generated token's row."""

    token_ids: NDArray[np.int32]
    """``[stages, k]``, k = 0 for a dense row."""
    logprobs: NDArray[np.floating]
    """``[stages, k or vocab]``, nats."""
    statistics: NDArray[np.float32]
    """``[8]``, see :data:`STATISTICS`."""
