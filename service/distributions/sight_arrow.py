"""Answers of lens and score as Arrow: a row for each layer and position, or for each token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from service.distributions.arrow import RESPONSE
from service.distributions.token_texts import TokenTexts


def lens_stream(
    about: Mapping[str, Any], read: Mapping[str, NDArray[Any]], texts: TokenTexts
) -> bytes:
    """Return a stream of a row for each layer and position, layer by layer.

    Args:
        about: the fields of the whole answer: ``token_ids`` of the text, ``layers``,
            ``positions`` and more; they go into the metadata of the stream.
        read: ``[layers, positions, k]`` int32 ``token_ids`` and float32 ``logprobs``,
            ``[layers, positions]`` float32 ``entropy``, ``kl``, ``next_logprobs`` and
            ``next_ranks``.
        texts: the texts of the vocabulary.

    """
    text, layers, positions = about["token_ids"], about["layers"], about["positions"]
    here = np.array(text, np.int32)[positions]
    following = np.array([*text[1:], -1], np.int32)[positions]
    nothing = np.tile(following < 0, len(layers))

    def of_position(values: NDArray[np.int32]) -> NDArray[np.int32]:
        return np.tile(values, len(layers))

    def after(values: NDArray[Any], dtype: Any) -> Any:
        return pa.array(values.reshape(-1).astype(dtype), mask=nothing)

    k = read["token_ids"].shape[2]
    named = read["token_ids"].reshape(-1)
    columns = {
        "layer": pa.array(np.repeat(np.array(layers, np.int32), len(positions))),
        "position": pa.array(of_position(np.array(positions, np.int32))),
        "token_id": pa.array(of_position(here)),
        "token": _texts(of_position(here), texts),
        "entropy": pa.array(read["entropy"].reshape(-1)),
        "kl": pa.array(read["kl"].reshape(-1)),
        "next_token_id": after(of_position(following), np.int32),
        "next_logprob": after(read["next_logprobs"], np.float32),
        "next_rank": after(read["next_ranks"], np.int32),
        "token_ids": pa.FixedSizeListArray.from_arrays(pa.array(named), k),
        "tokens": pa.FixedSizeListArray.from_arrays(_texts(named, texts), k),
        "logprobs": pa.FixedSizeListArray.from_arrays(pa.array(read["logprobs"].reshape(-1)), k),
    }
    return _stream(columns, about)


def score_stream(answer: Mapping[str, Any]) -> bytes:
    """Return a stream of a row for each token of each continuation.

    Args:
        answer: the JSON answer; fields of no single token go into the metadata of the stream.

    """
    scored: Sequence[Mapping[str, Any]] = answer["continuations"]
    columns = {
        "continuation": _joined([[each["index"]] * len(each["token_ids"]) for each in scored]),
        "position": _joined([range(len(each["token_ids"])) for each in scored]),
        "token_id": _joined([each["token_ids"] for each in scored]),
        "token": _joined([each["tokens"] for each in scored], pa.utf8()),
    }
    stages = [stage for stage in ("base", "controlled") if stage in scored[0]]
    for stage in stages:
        scores = [each[stage] for each in scored]
        best = [entry for each in scores for entry in each["best"]]
        columns |= {
            f"{stage}_logprob": _joined([each["logprobs"] for each in scores], pa.float32()),
            f"{stage}_rank": _joined([each["ranks"] for each in scores]),
            f"{stage}_entropy": _joined([each["entropies"] for each in scores], pa.float32()),
            f"{stage}_best_token_id": pa.array([each["token_id"] for each in best], pa.int32()),
            f"{stage}_best_token": pa.array([each["token"] for each in best], pa.utf8()),
            f"{stage}_best_logprob": pa.array([each["logprob"] for each in best], pa.float32()),
        }
    wholes = ("loss", "perplexity", "parts_at")
    about = {
        **answer,
        "continuations": [
            {
                "index": each["index"],
                **{stage: {name: each[stage][name] for name in wholes} for stage in stages},
            }
            for each in scored
        ],
    }
    return _stream(columns, about)


def _joined(runs: Sequence[Sequence[Any]], kind: Any = None) -> Any:
    """Return the values of all continuations as one column, int32 by default."""
    return pa.array([value for run in runs for value in run], kind or pa.int32())


def _texts(token_ids: NDArray[np.int32], texts: TokenTexts) -> Any:
    """Return the texts of ``[n]`` tokens, each made once."""
    different, places = np.unique(token_ids, return_inverse=True)
    made = pa.array([texts.text(token) for token in different.tolist()], pa.utf8())
    return made.take(pa.array(places.reshape(-1)))


def _stream(columns: Mapping[str, Any], about: Mapping[str, Any]) -> bytes:
    batch = pa.RecordBatch.from_pydict(columns, metadata={RESPONSE: orjson.dumps(about)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    stream: bytes = sink.getvalue().to_pybytes()
    return stream
