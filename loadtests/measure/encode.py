"""The cost of encoding one row with a thousand entries, in the server's own code."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np
import orjson

from loadtests.measure.results import MICROSECONDS, Result, at_most
from logit_processors.row_spec import STATISTICS, RowSpec, TokenRow
from logit_processors.vocabulary import Vocabulary
from service.distributions.encode import DistributionEncoder
from service.distributions.tensors import to_base64
from service.schemas.distribution import DistributionRequest

TOP_K = 1000
VOCABULARY = 49152
_ROWS = 64
_PASSES = 10


def measure_encoding(rounds: int) -> list[Result]:
    """Return the three costs: a row's arrays, the object around them, OpenAI's JSON."""
    # It imports vLLM, which takes seconds and is not needed by any other case.
    from service.distributions.openai_logprobs import chat_logprobs
    from service.distributions.token_texts import TokenTexts

    rows = make_rows()
    spec = RowSpec(top_k=TOP_K, controlled=True)
    request = DistributionRequest.model_validate({"top_k": TOP_K})
    texts = TokenTexts(Vocabulary([b" token%d" % i for i in range(VOCABULARY)]))

    encoder = DistributionEncoder(request, spec, VOCABULARY)

    def arrays(row: TokenRow) -> bytes:
        return to_base64(row.token_ids[0]) + to_base64(row.logprobs[0])

    def whole_object(row: TokenRow) -> bytes:
        return encoder.encode([7], [row])

    def openai_json(row: TokenRow) -> bytes:
        return orjson.dumps(chat_logprobs(texts, [7], [row], TOP_K))

    results = []
    for name, title, limit, encode in (
        ("encode-arrays", "its two arrays in base64", 5.0, arrays),
        ("encode-object", "the whole object in base64", 5.0, whole_object),
        ("encode-openai", "as OpenAI's JSON", 200.0, openai_json),
    ):
        values = [microseconds(encode, rows) for _ in range(rounds + 1)][1:]
        goal = at_most(limit, MICROSECONDS)
        results.append(Result(name, f"encode a row of {TOP_K}: {title}", goal, values))
        print(f"{name}: {results[-1].median:.1f} us", flush=True)
    return results


def make_rows() -> list[TokenRow]:
    """Return rows as a model makes them: log-probabilities in float32, largest first."""
    random = np.random.default_rng(0)
    rows = []
    for _ in range(_ROWS):
        logits = random.normal(scale=3.0, size=VOCABULARY)
        logprobs = (logits - np.log(np.exp(logits).sum())).astype(np.float32)
        best = np.argsort(-logprobs)[:TOP_K].astype(np.int32)
        statistics = np.ones(len(STATISTICS), np.float32)
        rows.append(TokenRow(best[None], logprobs[best][None], statistics))
    return rows


def microseconds(encode: Callable[[TokenRow], bytes], rows: Sequence[TokenRow]) -> float:
    """Return the median time of a call, which another process that cuts in hardly moves."""
    times = []
    for _ in range(_PASSES):
        for row in rows:
            started = time.perf_counter_ns()
            encode(row)
            times.append(time.perf_counter_ns() - started)
    return median(times) / 1000
