"""Arrow streams under load: what is checked of each, and the page."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from loadtests.arrow_streams import TOKENS, _check, streams_markdown
from loadtests.measure.client import RequestError
from logit_processors.row_spec import DENSE
from service.distributions.arrow import END, RESPONSE, ArrowEncoder
from service.distributions.token_texts import TokenTexts
from service.schemas.distribution import DistributionRequest
from tests.entries import spec_of
from tests.unit_support import FOUR, token_row

LOGPROBS = [-1.0, -0.5, -3.0, -4.0]


def content(token_ids: list[int], text_ids: list[int], *, drawn: float | None = None) -> bytes:
    """Return a stream of these tokens, whose closing object tells of others."""
    spec = spec_of(DENSE, controlled=True)
    encoder = ArrowEncoder(DistributionRequest(top_k="all"), spec, 4, TokenTexts(FOUR))
    rows = [
        token_row([LOGPROBS], None, controlled_logprob=LOGPROBS[t] if drawn is None else drawn)
        for t in token_ids
    ]
    answer = orjson.dumps({"choices": [{"token_ids": text_ids}]})
    messages = [encoder.rows(0, 0, token_ids, rows), encoder.closing(RESPONSE, answer)]
    return b"".join([encoder.head, *map(bytes, messages), END])


def test_a_stream_of_the_texts_own_tokens_passes() -> None:
    token_ids = np.arange(TOKENS) % 4
    assert _check(content(token_ids.tolist(), token_ids.tolist())) == TOKENS


@pytest.mark.parametrize(
    ("count", "changed", "drawn"), [(TOKENS - 1, 0, None), (TOKENS, 1, None), (TOKENS, 0, -0.9)]
)
def test_a_missing_a_wrong_and_a_strange_row_do_not(
    count: int, changed: int, drawn: float | None
) -> None:
    text_ids = (np.arange(TOKENS) % 4).tolist()
    token_ids = text_ids[:count]
    token_ids[5] = (token_ids[5] + changed) % 4
    with pytest.raises(RequestError):
        _check(content(token_ids, text_ids, drawn=drawn))


def test_the_page_tells_memory_and_ratios() -> None:
    sizes = {"API server": 700 << 20, "EngineCore": 500 << 20}
    streams: dict[str, Any] = {"streams": 100, "tokens_checked": 20000, "preemptions": 7.0}
    streams |= {"before": sizes, "peak": sizes | {"EngineCore": 510 << 20}, "after": sizes}
    rates = {"alone": [100.0, 200.0, 100.0], "slow": [90.0, 190.0, 99.0]}
    machine = {"cores": 2, "cpu": "x", "accelerators": [], "memory_gib": 24, "vllm": "0.32.0"}
    machine |= {"torch": "2.13", "python": "3.11", "date": "2026-11-24T00:00"}
    page = streams_markdown(streams, rates, machine)
    assert "20000 rows" in page
    assert "7 preemptions" in page
    assert "0.950 (0.900 to 0.990)" in page
    assert "| peak   | 700        | 510        |" in page
