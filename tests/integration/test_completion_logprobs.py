"""Logprobs of completions where a character takes several tokens, and offsets elsewhere."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.client import Client
from tests.integration.servers import MODEL

TEXTS = ("Привет 😊 ok", "東京は 안녕 é", "The sea")


def stands(text: str, told: dict[str, Any]) -> bool:
    """Say whether each token stands where ``text_offset`` has it, and all join to the text."""
    places = zip(told["text_offset"], told["tokens"], strict=True)
    return all(text.startswith(token, at) for at, token in places) and (
        "".join(told["tokens"]) == text
    )


@pytest.mark.parametrize("text", TEXTS)
def test_an_echo_loses_nothing_and_its_tokens_stand_in_it(v1: Client, text: str) -> None:
    choice = v1.choice(text, echo=True, logprobs=5, max_tokens=1, return_token_ids=False)
    told = choice["logprobs"]
    assert stands(choice["text"], told)
    rows = zip(told["tokens"], told["token_logprobs"], told["top_logprobs"], strict=True)
    prompt = choice["prompt_logprobs"]
    for at, (token, logprob, listed) in enumerate(rows):
        if at == 0:
            assert (logprob, listed, prompt[0]) == (None, None, None)
            continue
        assert listed[token] == logprob
        if at == len(prompt):
            break
        entries = list(prompt[at].values())
        assert sorted(listed.values()) == sorted(each["logprob"] for each in entries)
        assert entries[0]["decoded_token"] == token
        best = max(listed.values())
        assert (entries[0]["rank"] == 1) == (logprob == best)


def test_a_streams_tokens_stand_in_its_text(v1: Client) -> None:
    body = {"model": MODEL, "prompt": "Say:", "max_tokens": 4, "temperature": 0, "logprobs": 0}
    force = {"logit_control": {"force": {"text": " ≠ b"}}}
    choices = [e["choices"][0] for e in v1.events("/v1/completions", {**body, **force})]
    told = {
        field: [value for choice in choices for value in choice["logprobs"][field]]
        for field in ("text_offset", "tokens")
    }
    assert stands("".join(choice["text"] for choice in choices), told)


def test_tokens_that_the_text_does_not_show_do_not_move_it(v1: Client) -> None:
    as_ids = v1.choice("The sea", echo=True, logprobs=0, return_tokens_as_token_ids=True)
    assert as_ids["logprobs"]["text_offset"][:3] == [0, 3, 7]
    assert as_ids["logprobs"]["tokens"][0].startswith("token_id:")
    # Token 2 ends a turn.
    force = {"force": {"token_ids": [504, 2, 504]}}
    forced = v1.choice("Say ", logprobs=0, max_tokens=4, logit_control=force)
    assert forced["logprobs"]["text_offset"][:3] == [0, 3, 3]
    shown = v1.choice(
        "Say ", logprobs=0, max_tokens=4, logit_control=force, skip_special_tokens=False
    )
    assert stands(shown["text"], shown["logprobs"])
