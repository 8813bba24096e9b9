"""A request's options, the rows that must be kept for them, and the memory of these rows."""

from __future__ import annotations

from dataclasses import dataclass, replace

from logit_processors.row_spec import DENSE, RowSpec
from service.planning.budget import BASE64_COPIES, JSON_BYTES_PER_NUMBER, OPENAI_BYTES_PER_ENTRY
from service.schemas.control import LogitControl
from service.schemas.distribution import DistributionRequest


@dataclass(frozen=True)
class Asked:
    """The options of a request that Sensefield implements."""

    control: LogitControl | None
    distribution: DistributionRequest | None
    logit_bias: dict[str, float] | None
    logprobs: int | None
    """OpenAI's number of alternatives; None without logprobs, -1 for all."""
    logprobs_field: str
    """The request's field with that number."""
    stream: bool
    choices: int
    """``n``."""
    beam_search: bool
    scored_token_ids: bool
    """True if vLLM's ``logprob_token_ids`` is used."""
    prompt_logprobs: int | None = None
    """The number of alternatives of vLLM's ``prompt_logprobs`` or ``echo``, likewise."""
    arrow: bool = False
    """True if the answer is an Arrow stream."""


def row_spec(asked: Asked, can_fail: bool) -> RowSpec | None:
    """Return the spec of the rows that the request's options need.

    Args:
        asked: the request.
        can_fail: whether its control may miss a vector or pattern, or leave a row no token.

    """
    if asked.beam_search or asked.scored_token_ids:
        return None
    distribution, logprobs = asked.distribution, asked.logprobs
    if distribution is None and logprobs is None:
        # Keep a row of statistics alone, to detect control that failed.
        return RowSpec() if can_fail else None
    kept = distribution.kept if distribution is not None else 0
    wanted = {kept, logprobs or 0}
    stages = distribution.stages if distribution is not None else []
    return RowSpec(
        top_k=DENSE if DENSE in wanted else max(wanted),
        base="base" in stages or logprobs is not None,
        controlled="controlled" in stages,
        half=distribution is not None and distribution.dtype == "float16" and logprobs is None,
    )


def prompt_spec(asked: Asked) -> RowSpec | None:
    """Return the spec of the prompt's rows."""
    like = _of_prompt(asked)
    if like.distribution is None and like.logprobs is None:
        return None
    return row_spec(like, can_fail=False)


def prompt_bytes(asked: Asked, spec: RowSpec, width: int, tokens: int) -> int:
    """Return the most memory that the rows of a prompt of ``tokens`` may take."""
    return request_bytes(_of_prompt(asked), spec, width, tokens)


def _of_prompt(asked: Asked) -> Asked:
    """Return the prompt's options as if they were options of generated tokens, unstreamed.

    Each choice is a separate request in the engine, with all rows of the prompt.
    """
    distribution = asked.distribution
    return replace(
        asked,
        distribution=None if distribution is None or not distribution.prompt else distribution,
        logprobs=asked.prompt_logprobs,
        scored_token_ids=False,
        stream=False,
        arrow=False,
    )


def request_bytes(asked: Asked, spec: RowSpec, width: int, tokens: int) -> int:
    """Return the most memory that ``tokens`` generated tokens of this request may take."""
    kept = width if spec.top_k == DENSE else spec.top_k
    number = 2 if spec.half else 4
    size = 0
    if asked.distribution is not None:
        entries = kept * len(spec.stages)
        row = entries * (number + (0 if spec.top_k == DENSE else 4))
        if asked.distribution.encoding == "json" and not asked.arrow:
            row += 2 * entries * JSON_BYTES_PER_NUMBER
        # An Arrow stream keeps the rows of OpenAI's logprobs until its end.
        leaves = asked.stream or (asked.arrow and asked.logprobs is None)
        size += row if leaves else row * BASE64_COPIES
    if asked.logprobs is not None:
        listed = width if asked.logprobs == DENSE else asked.logprobs
        size += (listed + 1) * OPENAI_BYTES_PER_ENTRY
    return size * tokens * asked.choices
