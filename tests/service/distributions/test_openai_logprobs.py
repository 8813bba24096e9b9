"""OpenAI's logprobs from kept rows, in the order and with the values of vLLM's own."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from vllm.logprobs import Logprob

from logit_processors.row_spec import DENSE
from logit_processors.vocabulary import Vocabulary
from service.distributions.openai_logprobs import (
    chat_logprobs,
    completion_logprobs,
    prompt_logprobs,
    top_entries,
)
from service.distributions.text_walk import TextWalk
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


def chat(*arguments: Any) -> Any:
    """Return the entries of a chat's object, as a client reads it."""
    return json.loads(b"".join(chat_logprobs(TEXTS, *arguments)))["content"]


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
    content = chat([2, 0], [ROW, ROW], 3)
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
    named, plain = (chat([2], [ROW], 3, as_ids)[0] for as_ids in (True, False))
    assert [entry["token"] for entry in (named, *named["top_logprobs"])] == [
        "token_id:2", "token_id:2", "token_id:1", "token_id:0",
    ]  # fmt: skip
    for one, other in zip(
        (named, *named.pop("top_logprobs")), (plain, *plain.pop("top_logprobs")), strict=True
    ):
        assert one | {"token": ""} == other | {"token": ""}


@pytest.mark.parametrize(("count", "shown"), [(0, 0), (1, 1), (2, 2), (DENSE, 6)])
def test_the_list_is_cut_at_top_logprobs(count: int, shown: int) -> None:
    (entry,) = chat([2], [DENSE_ROW], count)
    assert len(entry["top_logprobs"]) == shown
    assert entry["logprob"] == -2.5


def test_no_tokens_are_no_entries() -> None:
    assert chat([], [], 5) == []


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
    (entry,) = chat([0], [row], 1)
    assert entry["logprob"] == value


def completion(
    token_ids: list[int], rows: list[Any], count: int, *, as_ids: bool = False, texts: Any = TEXTS
) -> Any:
    """Return a completion's object, as a client reads it."""
    walk = TextWalk(texts, skips_special=True)
    tokens = list(map(walk.step, token_ids))
    return json.loads(b"".join(completion_logprobs(texts, tokens, rows, count, as_ids)))


CUT = token_row([[-0.25, -INF]], [[3, 0]], base_logprob=-0.25, base_rank=1.0)


def test_a_completions_logprobs() -> None:
    # The sampled one begins a character that the next token breaks off.
    assert completion([2, 3], [ROW, CUT], 2) == {
        "text_offset": [0, 0],
        "token_logprobs": [-2.5, -0.25],
        "tokens": ["", '\ufffd"\n'],
        "top_logprobs": [
            {"": -2.5, "é": -0.5, "a": -1.0},
            {'\ufffd"\n': -0.25, "a": -9999.0},
        ],
    }


def test_a_completions_logprobs_without_alternatives() -> None:
    assert completion([0, 3], [ROW, CUT], 0)["top_logprobs"] == [{"a": -2.5}, {'"\n': -0.25}]


def test_a_prompts_first_token_has_no_probability() -> None:
    told = completion([0, 3], [None, CUT], 1)
    assert told["token_logprobs"] == [None, -0.25]
    assert told["top_logprobs"] == [None, {'"\n': -0.25}]
    assert told["text_offset"] == [0, 1]


def test_no_tokens_have_no_logprobs() -> None:
    assert completion([], [], 2) == {
        "text_offset": [], "token_logprobs": [], "tokens": [], "top_logprobs": [],
    }  # fmt: skip


def test_tokens_as_ids_stand_where_their_text_does() -> None:
    told = completion([0, 4, 3], [ROW, CUT, CUT], 2, as_ids=True)
    assert told["tokens"] == ["token_id:0", "token_id:4", "token_id:3"]
    assert told["text_offset"] == [0, 1, 1]
    assert told["top_logprobs"][0] == {"token_id:0": -2.5, "token_id:1": -0.5}


SPLIT = TokenTexts(
    Vocabulary(["é".encode(), "é".encode()[:1], "é".encode()[1:], b"\x98", b"\x99", b"a"])
)


def test_no_alternative_is_lost_to_one_of_the_same_text() -> None:
    # All but one are parts of characters, and the whole é is not the é that token 2 completes.
    row = token_row([[-0.5, -1.0, -2.0, -3.0, -4.0, -5.0]], [[3, 0, 4, 2, 1, 5]],
                    base_logprob=-3.0, base_rank=4.0)  # fmt: skip
    first = token_row([[-1.0]], [[1]], base_logprob=-1.0, base_rank=1.0)
    told = completion([1, 2], [first, row], 6, texts=SPLIT)
    assert told["tokens"] == ["", "é"]
    assert told["text_offset"] == [0, 0]
    assert told["top_logprobs"][1] == {
        "é": -3.0, "bytes:\\x98": -0.5, "token_id:0": -1.0, "bytes:\\x99": -2.0,
        "bytes:\\xc3": -4.0, "a": -5.0,
    }  # fmt: skip


@pytest.mark.parametrize("sampled", range(6))
def test_the_likeliest_has_the_largest_value(sampled: int) -> None:
    values = -np.arange(1, 7, dtype=np.float32)
    row = token_row([values.tolist()], [list(range(6))], base_logprob=float(values[sampled]))
    told = completion([sampled], [row], DENSE, texts=SPLIT)
    (listed,) = told["top_logprobs"]
    assert sorted(listed.values(), reverse=True) == values.tolist()
    assert listed[told["tokens"][0]] == values[sampled]


def test_what_the_engine_measured_itself_is_told_likewise() -> None:
    entry = {1: Logprob(-0.5, 1, "x"), 0: Logprob(-INF, 2, "y"), 3: Logprob(-2.0, 3, "z")}
    assert completion([0], [entry], 1)["top_logprobs"] == [{"a": -9999.0, "é": -0.5}]
    assert [each["token"] for each in chat([1], [entry], DENSE)[0]["top_logprobs"]] == [
        "é", "a", '"\n',
    ]  # fmt: skip


def prompt(token_ids: list[int], rows: list[Any], count: int) -> Any:
    """Return a prompt's list, as a client reads it."""
    walk = TextWalk(TEXTS, skips_special=False)
    first, *tokens = map(walk.step, token_ids)
    assert first.offset == 0
    return json.loads(b"".join(prompt_logprobs(TEXTS, tokens, rows, count)))


def test_a_prompts_logprobs_are_in_vllms_form() -> None:
    assert prompt([0, 2], [ROW], 2) == [
        None,
        {
            "2": {"logprob": -2.5, "rank": 3, "decoded_token": ""},
            "1": {"logprob": -0.5, "rank": 1, "decoded_token": "é"},
            "0": {"logprob": -1.0, "rank": 2, "decoded_token": "a"},
        },
    ]
    assert prompt([0], [], 2) == [None]


def test_a_prompts_token_tells_the_character_that_it_completes() -> None:
    texts = TokenTexts(Vocabulary(["é".encode()[:1], "é".encode()[1:], b"\xa8"]))
    walk = TextWalk(texts, skips_special=False)
    _, *tokens = map(walk.step, [0, 1])
    row = token_row([[-0.5, -1.0]], [[2, 1]], base_logprob=-1.0, base_rank=2.0)
    told = json.loads(b"".join(prompt_logprobs(texts, tokens, [row], 2)))[1]
    assert {i: entry["decoded_token"] for i, entry in told.items()} == {"1": "é", "2": "è"}


def test_a_suppressed_alternative_is_finite_json() -> None:
    row = token_row([[-0.0, -INF]], [[0, 1]], base_rank=1.0)
    assert prompt([0, 0], [row], 2)[1]["1"]["logprob"] == -9999.0


def test_ranks_count_the_sampled_token_where_it_stands() -> None:
    # vLLM ranks the alternatives by their place among all, with the sampled token in it.
    made = prompt([0, 2], [ROW], 4)[1]
    assert {i: entry["rank"] for i, entry in made.items()} == {"2": 3, "1": 1, "0": 2, "3": 4}
