"""The tables of the lens and the score, column by column."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import polars as pl
import pyarrow as pa

from logit_processors.vocabulary import Vocabulary
from service.distributions.sight_arrow import lens_stream, score_stream
from service.distributions.token_texts import TokenTexts
from tests.unit_support import FOUR

TEXTS = TokenTexts(Vocabulary(FOUR.tokens, width=10))
ABOUT = {"object": "lens", "token_ids": [3, 0, 2], "layers": [4, 7], "positions": [0, 2]}
READ: dict[str, Any] = {
    "token_ids": np.array([[[0, 1], [2, 9]], [[3, 0], [1, 2]]], np.int32),
    "logprobs": -np.arange(8, dtype=np.float32).reshape(2, 2, 2),
    "entropy": np.array([[0.5, 1.5], [2.5, 3.5]], np.float32),
    "kl": np.array([[9.0, 8.0], [0.0, 0.0]], np.float32),
    "next_logprobs": np.array([[-1.0, -2.0], [-3.0, -4.0]], np.float32),
    "next_ranks": np.array([[1, 2], [3, 4]], np.float32),
}


def told(table: Any) -> Any:
    return orjson.loads(table.schema.metadata[b"sensefield.response"])


def test_a_row_for_each_layer_and_position() -> None:
    table = pa.ipc.open_stream(lens_stream(ABOUT, READ, TEXTS)).read_all()
    assert table.to_pydict() == {
        "layer": [4, 4, 7, 7],
        "position": [0, 2, 0, 2],
        "token_id": [3, 2, 3, 2],
        "token": [" ", "ab", " ", "ab"],
        "entropy": [0.5, 1.5, 2.5, 3.5],
        "kl": [9.0, 8.0, 0.0, 0.0],
        # Nothing follows the last token.
        "next_token_id": [0, None, 0, None],
        "next_logprob": [-1.0, None, -3.0, None],
        "next_rank": [1, None, 3, None],
        "token_ids": [[0, 1], [2, 9], [3, 0], [1, 2]],
        # A logit beyond the vocabulary is no token.
        "tokens": [["a", "b"], ["ab", ""], [" ", "a"], ["b", "ab"]],
        "logprobs": [[0.0, -1.0], [-2.0, -3.0], [-4.0, -5.0], [-6.0, -7.0]],
    }
    assert told(table) == ABOUT


def test_other_readers_read_it() -> None:
    frame = pl.read_ipc_stream(lens_stream(ABOUT, READ, TEXTS))
    assert frame["tokens"].to_list()[1] == ["ab", ""]
    assert frame["next_rank"].null_count() == 2


def scored(stages: list[str]) -> dict[str, Any]:
    def stage(count: int) -> dict[str, Any]:
        return {
            "logprobs": [-0.5 - at for at in range(count)],
            "ranks": [1 + at for at in range(count)],
            "entropies": [0.25] * count,
            "best": [{"token_id": 2, "token": "ab", "logprob": -0.5}] * count,
            **{"loss": 0.5, "perplexity": 1.6, "parts_at": None},
        }

    return {
        "object": "score",
        "continuations": [
            {"index": 0, "token_ids": [0], "tokens": ["a"], **{s: stage(1) for s in stages}},
            {
                "index": 1,
                "token_ids": [1, 3],
                "tokens": ["b", " "],
                **{s: stage(2) for s in stages},
            },
        ],
    }


def test_a_row_for_each_token_of_each_continuation() -> None:
    table = pa.ipc.open_stream(score_stream(scored(["base", "controlled"]))).read_all()
    assert table.select(range(10)).to_pydict() == {
        "continuation": [0, 1, 1],
        "position": [0, 0, 1],
        "token_id": [0, 1, 3],
        "token": ["a", "b", " "],
        "base_logprob": [-0.5, -0.5, -1.5],
        "base_rank": [1, 1, 2],
        "base_entropy": [0.25, 0.25, 0.25],
        "base_best_token_id": [2, 2, 2],
        "base_best_token": ["ab", "ab", "ab"],
        "base_best_logprob": [-0.5, -0.5, -0.5],
    }
    assert table["controlled_rank"].to_pylist() == [1, 1, 2]
    wholes = {"loss": 0.5, "perplexity": 1.6, "parts_at": None}
    assert told(table)["continuations"][1] == {"index": 1, "base": wholes, "controlled": wholes}


def test_a_score_without_control_has_one_stage() -> None:
    table = pa.ipc.open_stream(score_stream(scored(["base"]))).read_all()
    assert len(table.column_names) == 10
    assert told(table)["continuations"][0].keys() == {"index", "base"}
