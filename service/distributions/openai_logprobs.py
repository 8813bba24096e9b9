"""OpenAI's ``logprobs`` from kept rows, with the values and order of vLLM's own.

vLLM puts the sampled token first and then the most likely ones, and cuts that list at
``top_logprobs``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import orjson
from numpy.typing import NDArray
from vllm.logprobs import Logprob

from logit_processors.row_spec import DENSE, STATISTICS, TokenRow
from logit_processors.vocabulary import Vocabulary
from service.distributions.tensors import NEVER

_LOGPROB = STATISTICS.index("base_logprob")
_RANK = STATISTICS.index("base_rank")


class TokenTexts:
    """What tokens look like in an answer: text, and JSON made once for each token."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._fragments: list[bytes | None] = [None] * vocabulary.width

    def text(self, token_id: int) -> str:
        """Return the token's text; bytes that are no character show as U+FFFD."""
        return self._bytes(token_id).decode(errors="replace")

    def fragment(self, token_id: int) -> bytes:
        """Return ``{"token":…,"bytes":[…],"logprob":``, ready for a number and a brace."""
        fragment = self._fragments[token_id]
        if fragment is None:
            data = self._bytes(token_id)
            text = orjson.dumps(data.decode(errors="replace"))
            shown = orjson.dumps(list(data))
            fragment = b'{"token":%s,"bytes":%s,"logprob":' % (text, shown)
            self._fragments[token_id] = fragment
        return fragment

    def _bytes(self, token_id: int) -> bytes:
        tokens = self._vocabulary.tokens
        return tokens[token_id] if token_id < len(tokens) else b""


def top_entries(row: TokenRow, sampled: int, count: int) -> tuple[list[int], list[float]]:
    """Return ids and log-probabilities: the sampled token, then the ``count`` likeliest."""
    token_ids, logprobs = _likeliest(row, count)
    others = token_ids != sampled
    ids = [sampled, *token_ids[others].tolist()]
    values = [float(row.statistics[_LOGPROB]), *logprobs[others].tolist()]
    return ids, [max(value, NEVER) for value in values]


def _likeliest(row: TokenRow, count: int) -> tuple[NDArray[np.int32], NDArray[np.floating]]:
    logprobs, token_ids = row.logprobs[0], row.token_ids[0]
    wanted = len(logprobs) if count == DENSE else count
    if not len(token_ids) and len(logprobs):
        token_ids = np.argsort(-logprobs, kind="stable").astype(np.int32)
        logprobs = logprobs[token_ids]
    return token_ids[:wanted], logprobs[:wanted]


def chat_logprobs(
    texts: TokenTexts, token_ids: Sequence[int], rows: Sequence[TokenRow], count: int
) -> orjson.Fragment:
    """Return the ``logprobs`` object of a chat choice as JSON."""
    content = []
    for token_id, row in zip(token_ids, rows, strict=True):
        ids, values = top_entries(row, token_id, count)
        # One call formats all numbers; a comma cannot be inside one.
        numbers = orjson.dumps(values)[1:-1].split(b",")
        entries = [texts.fragment(i) + n + b"}" for i, n in zip(ids, numbers, strict=True)]
        shown = entries if count == DENSE else entries[:count]
        content.append(entries[0][:-1] + b',"top_logprobs":[' + b",".join(shown) + b"]}")
    return orjson.Fragment(b'{"content":[' + b",".join(content) + b"]}")


def completion_logprobs(
    texts: TokenTexts, token_id: int, row: TokenRow, count: int
) -> dict[int, Logprob]:
    """Return one row in the form that vLLM's completion route reads."""
    ids, values = top_entries(row, token_id, count)
    places = np.flatnonzero(_likeliest(row, count)[0] != token_id) + 1
    ranks = [int(row.statistics[_RANK]), *places.tolist()]
    return {
        token: Logprob(logprob=value, rank=rank, decoded_token=texts.text(token))
        for token, value, rank in zip(ids, values, ranks, strict=True)
    }
