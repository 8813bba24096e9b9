"""Logprobs of completions whose choices come whole or in events, after an echoed prompt or not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from logit_processors.vocabulary import Vocabulary
from service.api.text_logprobs import TextLogprobs
from service.distributions.token_texts import TokenTexts
from tests.unit_support import token_row

EURO = "€".encode()
END = 5
TEXTS = TokenTexts(
    Vocabulary([b"a", b" b", EURO[:1], EURO[1:2], EURO[2:], b"<end>"], frozenset({END}))
)
A, B, *PARTS = range(5)


def writer(*, skips_special: bool = True, shows_tokens: bool = True) -> TextLogprobs:
    return TextLogprobs(
        TEXTS, 0, as_ids=False, skips_special=skips_special, shows_tokens=shows_tokens
    )


def rows(*token_ids: int) -> list[Any]:
    return [token_row([[]], [[]], base_logprob=-float(token_id)) for token_id in token_ids]


def told(writing: TextLogprobs, choice: int = 0) -> Any:
    return json.loads(b"".join(writing.pieces(choice)))


def test_a_stream_goes_on_where_its_last_event_ended() -> None:
    writing = writer()
    found: list[Any] = []
    for token_ids in ([A, PARTS[0]], [PARTS[1]], [PARTS[2], END, B]):
        assert not writing.waits
        writing.take(0, 0, [A], token_ids, rows(*token_ids))
        assert writing.waits
        event = told(writing)
        found += zip(event["tokens"], event["text_offset"], event["token_logprobs"], strict=True)
    assert found == [
        ("a", 0, 0.0), ("", 1, -2.0), ("", 1, -3.0), ("€", 1, -4.0), ("<end>", 2, -5.0),
        (" b", 2, -1.0),
    ]  # fmt: skip


def test_an_event_without_tokens_has_empty_lists() -> None:
    assert set(map(str, told(writer()).values())) == {"[]"}


@pytest.mark.parametrize("shows_tokens", [True, False])
def test_each_choice_begins_with_its_prompt_and_goes_on_after_it(shows_tokens: bool) -> None:
    writing = writer(shows_tokens=shows_tokens)
    writing.take_prompt(2, [A, B], rows(B), "a b")
    for choice, token_id in ((3, A), (2, B)):
        writing.take_prompt(2, [A, B], rows(A), "never")
        writing.take(choice, 2, [A, B], [token_id], rows(token_id))
    for choice, text in ((2, " b"), (3, "a")):
        answer = told(writing, choice)
        assert answer["tokens"] == ["a", " b", *[text] * shows_tokens]
        assert answer["text_offset"] == [0, 1, *[3] * shows_tokens]
        assert answer["token_logprobs"][:2] == [None, -1.0]
        assert answer["top_logprobs"][:2] == [None, {" b": -1.0}]


def test_a_prompt_without_rows_is_echoed_without_probabilities() -> None:
    writing = writer()
    writing.take_prompt(0, [A, B], None, "a b")
    writing.take(0, 0, None, [A], rows(A))
    assert told(writing)["token_logprobs"] == [None, None, 0.0]


def test_a_character_that_the_prompt_began_is_completed() -> None:
    writing = writer()
    writing.take(0, 0, PARTS[:2], PARTS[2:], rows(*PARTS[2:]))
    assert told(writing)["tokens"] == ["€"]
