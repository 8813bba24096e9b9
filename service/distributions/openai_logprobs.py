"""OpenAI's ``logprobs`` from kept rows, with the values and order of vLLM's own.

vLLM puts the sampled token first and then the most likely ones, and cuts that list at
``top_logprobs``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import orjson
from numpy.typing import NDArray
from vllm.entrypoints.openai.completion.protocol import CompletionLogProbs
from vllm.logprobs import Logprob

from logit_processors.row_spec import COLUMN, DENSE, TokenRow
from service.distributions.tensors import NEVER
from service.distributions.token_texts import TokenTexts


def top_entries(row: TokenRow, sampled: int, count: int) -> tuple[list[int], NDArray[np.float64]]:
    """Return ids and log-probabilities: the sampled token, then the ``count`` likeliest."""
    token_ids, logprobs = _likeliest(row, count)
    others = token_ids != sampled
    ids = [sampled, *token_ids[others].tolist()]
    at = COLUMN["base_logprob"]
    chosen = row.statistics[at : at + 1]
    values = np.concatenate((chosen, logprobs[others])).astype(np.float64)
    return ids, np.maximum(values, NEVER)


def _likeliest(row: TokenRow, count: int) -> tuple[NDArray[np.int32], NDArray[np.floating]]:
    logprobs, token_ids = row.logprobs[0], row.token_ids[0]
    wanted = len(logprobs) if count == DENSE else count
    if not len(token_ids) and len(logprobs):
        token_ids = np.argsort(-logprobs, kind="stable").astype(np.int32)
        logprobs = logprobs[token_ids]
    return token_ids[:wanted], logprobs[:wanted]


def chat_logprobs(
    texts: TokenTexts,
    token_ids: Sequence[int],
    rows: Sequence[TokenRow],
    count: int,
    as_ids: bool = False,
) -> orjson.Fragment:
    """Return the ``logprobs`` object of a chat choice as JSON.

    Args:
        texts: what tokens look like.
        token_ids: tokens.
        rows: a row for each of them.
        count: alternatives, or DENSE.
        as_ids: whether ``token`` is ``token_id:…`` in place of its text.

    """
    fragments = texts.id_fragments if as_ids else texts.fragments
    content = []
    for token_id, row in zip(token_ids, rows, strict=True):
        ids, values = top_entries(row, token_id, count)
        # One call formats all numbers; a comma cannot be inside one.
        numbers = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")
        entries = [b""] * (2 * len(ids))
        entries[::2] = fragments(ids)
        entries[1::2] = numbers
        shown = entries if count == DENSE else entries[: 2 * count]
        listed = b"".join(shown)[2:] + b"}" if shown else b""
        content.append(entries[0][2:] + entries[1] + b',"top_logprobs":[' + listed + b"]}")
    return orjson.Fragment(b'{"content":[' + b",".join(content) + b"]}")


def completion_logprobs(
    texts: TokenTexts,
    token_ids: Sequence[int],
    rows: Sequence[TokenRow],
    count: int,
    offset: int,
) -> CompletionLogProbs:
    """Return the ``logprobs`` object of a completion's choice.

    Args:
        texts: what tokens look like.
        token_ids: tokens.
        rows: a row for each of them.
        count: alternatives, or DENSE.
        offset: characters before the first token.

    """
    tokens = [texts.all[token_id] for token_id in token_ids]
    offsets = list(accumulate(map(len, tokens), initial=offset))
    token_logprobs, listed = [], []
    for token_id, row in zip(token_ids, rows, strict=True):
        ids, values = top_entries(row, token_id, count)
        numbers = values.tolist()
        token_logprobs.append(numbers[0])
        listed.append(dict(zip(map(texts.all.__getitem__, ids), numbers, strict=True)))
    # Nothing in it needs checking: of a thousand alternatives that would take longer than they.
    return CompletionLogProbs.model_construct(
        text_offset=offsets[:-1],
        token_logprobs=token_logprobs,
        tokens=tokens,
        top_logprobs=listed,
    )


def vllm_logprobs(
    texts: TokenTexts, token_id: int, row: TokenRow, count: int
) -> dict[int, Logprob]:
    """Return one row in vLLM's own form, for its prompts and for what it writes itself."""
    ids, values = top_entries(row, token_id, count)
    places = np.flatnonzero(_likeliest(row, count)[0] != token_id) + 1
    ranks = [int(row.statistics[COLUMN["base_rank"]]), *places.tolist()]
    return {
        token: Logprob(logprob=value, rank=rank, decoded_token=texts.all[token])
        for token, value, rank in zip(ids, values.tolist(), ranks, strict=True)
    }
