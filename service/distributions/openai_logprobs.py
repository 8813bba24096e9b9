"""OpenAI's ``logprobs`` from kept rows, with the values and order of vLLM's own.

vLLM puts the sampled token first and then the most likely ones, and cuts that list at
``top_logprobs``. The JSON is generated in pieces, one per token, so that a long answer does not
block the event loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import orjson
from numpy.typing import NDArray
from vllm.logprobs import Logprob

from logit_processors.row_spec import COLUMN, DENSE, TokenRow
from service.distributions.tensors import NEVER
from service.distributions.text_walk import Placed, text_after
from service.distributions.token_texts import TokenTexts, decoded_end

Entry = TokenRow | Mapping[int, Logprob]
"""A kept row, or vLLM's own logprobs of a token without one."""


def top_entries(row: Entry, sampled: int, count: int) -> tuple[list[int], NDArray[np.float64]]:
    """Return ids and log-probabilities: the sampled token, then the ``count`` likeliest.

    Returns:
        ``n`` ids and values ``[n]`` in nats, none below NEVER.

    """
    if isinstance(row, TokenRow):
        token_ids, logprobs = _likeliest(row, count)
        others = token_ids != sampled
        ids = [sampled, *token_ids[others].tolist()]
        at = COLUMN["base_logprob"]
        chosen = row.statistics[at : at + 1]
        values = np.concatenate((chosen, logprobs[others])).astype(np.float64)
    else:
        listed = [token_id for token_id in row if token_id != sampled]
        ids = [sampled, *(listed if count == DENSE else listed[:count])]
        values = np.array([row[token_id].logprob for token_id in ids], np.float64)
    return ids, np.maximum(values, NEVER)


def _likeliest(row: TokenRow, count: int) -> tuple[NDArray[np.int32], NDArray[np.floating]]:
    logprobs, token_ids = row.logprobs[0], row.token_ids[0]
    wanted = len(logprobs) if count == DENSE else count
    if not len(token_ids) and len(logprobs):
        token_ids = np.argsort(-logprobs, kind="stable").astype(np.int32)
        logprobs = logprobs[token_ids]
    return token_ids[:wanted], logprobs[:wanted]


def _numbers(values: NDArray[np.float64]) -> list[bytes]:
    """Return numbers as JSON texts: one call formats all, and no number contains a comma."""
    return orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")


def chat_logprobs(
    texts: TokenTexts,
    token_ids: Sequence[int],
    rows: Sequence[Entry],
    count: int,
    as_ids: bool = False,
) -> Iterator[bytes]:
    """Yield the ``logprobs`` object of a chat choice as JSON.

    Args:
        texts: the texts of tokens.
        token_ids: tokens.
        rows: a row for each of them.
        count: alternatives, or DENSE.
        as_ids: whether ``token`` is ``token_id:…`` in place of its text.

    """
    fragments = texts.id_fragments if as_ids else texts.fragments
    before = b'{"content":['
    for token_id, row in zip(token_ids, rows, strict=True):
        ids, values = top_entries(row, token_id, count)
        entries = [b""] * (2 * len(ids))
        entries[::2] = fragments(ids)
        entries[1::2] = _numbers(values)
        shown = entries if count == DENSE else entries[: 2 * count]
        listed = b"".join(shown)[2:] + b"}" if shown else b""
        yield before + entries[0][2:] + entries[1] + b',"top_logprobs":[' + listed + b"]}"
        before = b","
    yield b"]}" if before == b"," else before + b"]}"


def completion_logprobs(
    texts: TokenTexts,
    tokens: Sequence[Placed],
    rows: Sequence[Entry | None],
    count: int,
    as_ids: bool = False,
) -> Iterator[bytes]:
    """Yield the ``logprobs`` object of a completion's choice as JSON.

    The keys of an object in ``top_logprobs`` are distinct, so that none replaces another: the
    token's key is its text, an alternative's key is its name.

    Args:
        texts: the texts of tokens.
        tokens: tokens in their text.
        rows: a row for each token; None for a prompt's first token, which has no probability.
        count: alternatives, or DENSE.
        as_ids: whether tokens are shown as ``token_id:…``.

    """
    chosen = [
        None if row is None else max(_chosen(row, token.token_id), NEVER)
        for token, row in zip(tokens, rows, strict=True)
    ]
    about = {
        "text_offset": [token.offset for token in tokens],
        "token_logprobs": chosen,
        "tokens": [f"token_id:{t.token_id}" if as_ids else t.text for t in tokens],
    }
    before = orjson.dumps(about)[:-1] + b',"top_logprobs":['
    for token, row in zip(tokens, rows, strict=True):
        yield before + (b"null" if row is None else _alternatives(texts, token, row, count, as_ids))
        before = b","
    yield b"]}" if tokens else before + b"]}"


def _chosen(row: Entry, token_id: int) -> float:
    if isinstance(row, TokenRow):
        return float(row.statistics[COLUMN["base_logprob"]])
    return float(row[token_id].logprob)


def _alternatives(texts: TokenTexts, token: Placed, row: Entry, count: int, as_ids: bool) -> bytes:
    """Return the object of one token, whose own entry is the first."""
    ids, values = top_entries(row, token.token_id, count)
    keys = [b',"token_id:%d":' % token_id for token_id in ids] if as_ids else texts.keys(ids)
    if not as_ids and token.text != texts.names[token.token_id]:
        keys[0] = b",%s:" % orjson.dumps(token.text)
        for at, token_id in enumerate(ids[1:], 1):
            if texts.names[token_id] == token.text:
                keys[at] = b',"token_id:%d":' % token_id
    entries = [b""] * (2 * len(ids))
    entries[::2] = keys
    entries[1::2] = _numbers(values)
    return b"{%s}" % b"".join(entries)[1:]


def prompt_logprobs(
    texts: TokenTexts, tokens: Iterable[Placed], rows: Sequence[TokenRow], count: int
) -> Iterator[bytes]:
    """Yield vLLM's ``prompt_logprobs`` as JSON.

    Args:
        texts: the texts of tokens.
        tokens: the prompt's tokens from the second on; the first has no probability.
        rows: a row for each token.
        count: alternatives, or DENSE.

    """
    yield b"[null"
    for token, row in zip(tokens, rows, strict=True):
        yield b"," + _ranked(texts, token, row, count)
    yield b"]"


def _ranked(texts: TokenTexts, token: Placed, row: TokenRow, count: int) -> bytes:
    """Return one token's object: each alternative's value, rank and text, by its id."""
    ids, values = top_entries(row, token.token_id, count)
    places = np.flatnonzero(_likeliest(row, count)[0] != token.token_id) + 1
    ranks = [int(row.statistics[COLUMN["base_rank"]]), *places.tolist()]
    ends = texts.decoded(ids)
    ends[0] = decoded_end(token.text)
    # A token may complete a character that earlier tokens have begun, so its text depends on them.
    parts = np.flatnonzero(~texts.is_whole[ids]).tolist()
    for at in parts:
        if at:
            ends[at] = decoded_end(text_after(token.begun, texts.data(ids[at])))
    entries = [b""] * (4 * len(ids))
    entries[::4] = [b',"%d":{"logprob":' % token_id for token_id in ids]
    entries[1::4] = _numbers(values)
    entries[2::4] = [b',"rank":%d' % rank for rank in ranks]
    entries[3::4] = ends
    return b"{%s}" % b"".join(entries)[1:]
