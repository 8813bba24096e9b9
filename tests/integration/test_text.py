"""Text suppression and bias hold on the text, whatever the tokenization."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import httpx
import numpy as np
import pytest

from logit_processors.vocabulary import Vocabulary
from tests.integration.client import Client, array
from tests.integration.servers import MODEL

PROMPTS = [
    "The weather today is",
    "List: one, two,",
    "She said that",
    "日本の",
    "<p>",
    "In the end,",
]
# (pattern, ignore_case): within one token, across tokens, overlapping, unicode, white space.
PATTERNS = [
    (" the", False),
    ("THE ", True),
    ("e", False),
    ("s a", True),
    ("\n\n", False),
    ("  ", False),
    ("ss", False),
    ("の", False),
    ("ing", True),
    (", ", False),
]

DAILY = (" the", "e", "s a", "\n\n", "の")
"""Within one token, in many of them, across two, white space, unicode."""


def _texts(client: Client, pattern: str, ignore_case: bool, *, suppress: bool) -> list[str]:
    entry = {"text": pattern, "ignore_case": ignore_case}
    requests: list[dict[str, Any]] = [
        {
            "prompt": prompt,
            "max_tokens": 16,
            "temperature": temperature,
            "seed": seed,
            **({"logit_control": {"suppress": [entry]}} if suppress else {}),
        }
        for seed, (prompt, temperature) in enumerate(product(PROMPTS, (0.0, 0.9, 1.4)))
    ]
    return [choice["text"] for choice in client.together(requests[:16])]


@pytest.mark.parametrize(("pattern", "ignore_case"), PATTERNS)
def test_a_suppressed_text_never_appears(
    v1: Client, pattern: str, ignore_case: bool, full: bool
) -> None:
    if pattern not in DAILY and not full:
        pytest.skip("only with --full: all patterns are suppressed together daily")
    fold = str.lower if ignore_case else str
    free = _texts(v1, pattern, ignore_case, suppress=False)
    assert any(fold(pattern) in fold(text) for text in free), "this set could not fail"
    for text in _texts(v1, pattern, ignore_case, suppress=True):
        assert fold(pattern) not in fold(text)


def test_many_suppressions_hold_together(v2: Client) -> None:
    suppress = [{"text": text, "ignore_case": fold} for text, fold in PATTERNS]
    for seed in range(2):
        choice = v2.choice(
            PROMPTS[seed],
            max_tokens=8,
            temperature=1,
            seed=seed,
            logit_control={"suppress": suppress},
        )
        for text, fold in PATTERNS:
            assert (text.lower() if fold else text) not in (
                choice["text"].lower() if fold else choice["text"]
            )


@pytest.mark.alone
def test_patterns_without_room_are_refused_for_now_and_leave_it_when_they_end(v2: Client) -> None:
    def ask(name: str) -> httpx.Response:
        texts = [f"{name}{at:02}".ljust(250, "x") for at in range(64)]
        control = {"suppress": [{"text": text} for text in texts]}
        body = {"model": MODEL, "prompt": "The", "max_tokens": 1, "logit_control": control}
        return v2.http.post("/v1/completions", json=body)

    # Two of these have room beside each other, in a pool for 40,330 bytes.
    with ThreadPoolExecutor(3) as pool:
        answers = sorted(pool.map(ask, "abc"), key=lambda answer: answer.status_code)
    assert [answer.status_code for answer in answers] == [200, 200, 503]
    assert answers[2].json()["error"]["code"] == "patterns_full"
    assert answers[2].headers["retry-after"] == "5"
    assert "sensefield_pattern_bytes 0.0" in v2.http.get("/metrics").text
    assert ask("d").is_success


@pytest.mark.parametrize("runner", ["v1", "v2"])
def test_bias_raises_the_next_token_of_a_phrase_at_each_state(
    runner: str, request: pytest.FixtureRequest, vocabulary: Vocabulary
) -> None:
    client: Client = request.getfixturevalue(runner)
    phrase, add = " deep blue ocean", 30.0
    choice = client.choice(
        "Far below the ship lies the",
        max_tokens=4,
        logit_control={"bias": [{"text": phrase, "add": add}]},
        distribution={"top_k": "all", "stages": ["base", "controlled"]},
    )
    assert phrase in choice["text"]
    base, controlled = (
        array(choice["distribution"][stage]["logprobs"]).astype(np.float64)
        for stage in ("base", "controlled")
    )
    unrelated = vocabulary.tokens.index(b"7")
    written = b""
    for position, token in enumerate(choice["token_ids"]):
        if written.decode().startswith(phrase):
            break
        shift = controlled[position] - base[position]
        assert abs(shift[token] - shift[unrelated] - add) <= 1e-3
        written += vocabulary.text_bytes(token)
    assert position >= 2, "the phrase must take several tokens for this test to mean anything"


def test_a_lone_space_does_not_count_as_the_start_of_a_word(
    v1: Client, vocabulary: Vocabulary
) -> None:
    choice = v1.choice(
        "I like the",
        max_tokens=1,
        logit_control={"bias": [{"text": " ocean", "add": 5.0}]},
        distribution={"top_k": "all", "stages": ["base", "controlled"]},
    )
    base, controlled = (
        array(choice["distribution"][stage]["logprobs"])[0] for stage in ("base", "controlled")
    )
    shift = controlled - base
    space, ocean, piece, other = (
        vocabulary.tokens.index(token) for token in (b" ", b" ocean", b" o", b"7")
    )
    assert abs(shift[ocean] - shift[other] - 5) <= 1e-3
    assert abs(shift[piece] - shift[other] - 5) <= 1e-3
    assert abs(shift[space] - shift[other]) <= 1e-3
