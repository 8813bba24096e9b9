"""OpenAI's logprobs from kept rows, in the order and with the values of vLLM's own."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import orjson
import pytest

from logit_processors.row_spec import DENSE
from logit_processors.vocabulary import Vocabulary
from service.distributions.openai_logprobs import (
    chat_logprobs,
    completion_logprobs,
    top_entries,
    vllm_logprobs,
)
from service.distributions.token_texts import TokenTexts
from tests.unit_support import INF, token_row

TOKENS = [b"a", "é".encode(), "é".encode()[:1], b'"\n', b"<end>"]
VOCABULARY = Vocabulary(TOKENS, frozenset({4}), width=6)
TEXTS = TokenTexts(VOCABULARY)
# Token 2 was sampled, the third of the row.
ROW = token_row([[-0.5, -1.0, -2.5, -3.0]], [[1, 0, 2, 3]], base_logprob=-2.5, base_rank=3.0)
DENSE_ROW = token_row(
    [[-1.0, -0.5, -2.5, -3.0, -INF, -INF]], None, base_logprob=-2.5, base_rank=3.0
)


def listed(row: Any, sampled: int, count: int) -> tuple[list[int], list[float]]:
    ids, values = top_entries(row, sampled, count)
    return ids, values.tolist()


def fragment(token_id: int) -> Any:
    """Return a token's fragment as JSON, with 0 for the number and no entry before it."""
    return json.loads(TEXTS.fragments([token_id])[0].removeprefix(b"},") + b"0}")


@pytest.mark.parametrize("row", [ROW, DENSE_ROW], ids=["top_k", "dense"])
@pytest.mark.parametrize(
    ("count", "ids"), [(0, [2]), (1, [2, 1]), (2, [2, 1, 0]), (3, [2, 1, 0]), (4, [2, 1, 0, 3])]
)
def test_the_sampled_token_comes_first(row: Any, count: int, ids: list[int]) -> None:
    values = {0: -1.0, 1: -0.5, 2: -2.5, 3: -3.0}
    assert listed(row, 2, count) == (ids, [values[i] for i in ids])


def test_all_alternatives_are_the_whole_vocabulary() -> None:
    ids, values = listed(DENSE_ROW, 2, DENSE)
    assert sorted(ids) == list(range(6))
    assert ids[:4] == [2, 1, 0, 3]
    assert values[4:] == [-9999.0, -9999.0]


def test_rows_kept_for_a_distribution_tell_of_the_base_stage() -> None:
    row = token_row([[-0.25, -9.0], [-0.5, -8.0]], [[0, 1], [1, 0]], base_logprob=-9.0)
    assert listed(row, 1, 2) == ([1, 0], [-9.0, -0.25])


def test_a_row_that_keeps_no_alternatives_still_tells_of_the_sampled_token() -> None:
    row = token_row([[]], [[]], base_logprob=-1.25)
    assert listed(row, 3, 0) == ([3], [-1.25])


def test_chat_logprobs_as_openai_has_them() -> None:
    content = json.loads(orjson.dumps(chat_logprobs(TEXTS, [2, 0], [ROW, ROW], 3)))["content"]
    broken = {"token": "\ufffd", "bytes": [0xC3], "logprob": -2.5}
    assert content[0] == {
        **broken,
        "top_logprobs": [
            broken,
            {"token": "é", "bytes": [0xC3, 0xA9], "logprob": -0.5},
            {"token": "a", "bytes": [0x61], "logprob": -1.0},
        ],
    }
    assert [entry["token"] for entry in content[1]["top_logprobs"]] == ["a", "é", "\ufffd"]


def test_tokens_may_be_called_by_their_ids() -> None:
    named, plain = (
        json.loads(orjson.dumps(chat_logprobs(TEXTS, [2], [ROW], 3, as_ids)))["content"][0]
        for as_ids in (True, False)
    )
    assert [entry["token"] for entry in (named, *named["top_logprobs"])] == [
        "token_id:2", "token_id:2", "token_id:1", "token_id:0",
    ]  # fmt: skip
    for one, other in zip(
        (named, *named.pop("top_logprobs")), (plain, *plain.pop("top_logprobs")), strict=True
    ):
        assert one | {"token": ""} == other | {"token": ""}


@pytest.mark.parametrize(("count", "shown"), [(0, 0), (1, 1), (2, 2), (DENSE, 6)])
def test_the_list_is_cut_at_top_logprobs(count: int, shown: int) -> None:
    (entry,) = json.loads(orjson.dumps(chat_logprobs(TEXTS, [2], [DENSE_ROW], count)))["content"]
    assert len(entry["top_logprobs"]) == shown
    assert entry["logprob"] == -2.5


def test_no_tokens_are_no_entries() -> None:
    assert json.loads(orjson.dumps(chat_logprobs(TEXTS, [], [], 5))) == {"content": []}


def test_any_bytes_make_json() -> None:
    assert fragment(3) == {
        "token": '"\n', "bytes": [34, 10], "logprob": 0,
    }  # fmt: skip
    assert TEXTS.fragments([3])[0] is TEXTS.fragments([3])[0]
    assert fragment(4)["token"] == "<end>"
    # A logit that pads the vocabulary writes nothing.
    assert fragment(5) == {"token": "", "bytes": [], "logprob": 0}


def test_numbers_are_those_of_float32() -> None:
    value = float(np.float32(-0.1))
    row = token_row([[value]], [[0]], base_logprob=value, base_rank=1.0)
    (entry,) = json.loads(orjson.dumps(chat_logprobs(TEXTS, [0], [row], 1)))["content"]
    assert entry["logprob"] == value


def told(count: int, offset: int = 0) -> Any:
    """Return the completion's object of two tokens, as a client reads it."""
    rows = [ROW, token_row([[-0.25, -INF]], [[3, 0]], base_logprob=-0.25, base_rank=1.0)]
    return completion_logprobs(TEXTS, [2, 3], rows, count, offset).model_dump()


def test_a_completions_logprobs() -> None:
    assert told(2, offset=7) == {
        "text_offset": [7, 8],
        "token_logprobs": [-2.5, -0.25],
        "tokens": ["\ufffd", '"\n'],
        "top_logprobs": [{"\ufffd": -2.5, "é": -0.5, "a": -1.0}, {'"\n': -0.25, "a": -9999.0}],
    }


def test_a_completions_logprobs_without_alternatives() -> None:
    assert told(0)["top_logprobs"] == [{"\ufffd": -2.5}, {'"\n': -0.25}]


def test_no_tokens_have_no_logprobs() -> None:
    made = completion_logprobs(TEXTS, [], [], 2, 5).model_dump()
    assert made == {"text_offset": [], "token_logprobs": [], "tokens": [], "top_logprobs": []}


def test_a_prompts_logprobs_as_vllm_reads_them() -> None:
    made = vllm_logprobs(TEXTS, 2, ROW, 2)
    assert [(i, lp.logprob, lp.rank, lp.decoded_token) for i, lp in made.items()] == [
        (2, -2.5, 3, "\ufffd"),
        (1, -0.5, 1, "é"),
        (0, -1.0, 2, "a"),
    ]


def test_a_suppressed_alternative_is_finite_json() -> None:
    row = token_row([[-0.0, -INF]], [[0, 1]], base_rank=1.0)
    assert vllm_logprobs(TEXTS, 0, row, 2)[1].logprob == -9999.0


def test_ranks_count_the_sampled_token_where_it_stands() -> None:
    # vLLM ranks the alternatives by their place among all, with the sampled token in it.
    made = vllm_logprobs(TEXTS, 2, ROW, 4)
    assert {i: lp.rank for i, lp in made.items()} == {2: 3, 1: 1, 0: 2, 3: 4}
