"""Forced tokens come first, and are told with the probabilities that they had."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.integration.client import Client, array
from tests.integration.servers import MODEL

pytestmark = pytest.mark.xdist_group("v2")

PROMPT = "The capital of France is"
LYON = " a city named Lyon"
FORCED = [253, 2240, 3365, 38034]  # its tokens
BOTH = {"top_k": "all", "stages": ["base", "controlled"]}
CHAT = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Hi"}],
    "max_tokens": 12,
    "temperature": 0,
}


@pytest.fixture(params=["v1", "v2"])
def client(request: pytest.FixtureRequest) -> Client:
    """Each of the two runners."""
    found: Client = request.getfixturevalue(request.param)
    return found


def rows_of(reference: Any, choice: dict[str, Any]) -> torch.Tensor:
    """Return transformers' log-probabilities of a choice's tokens, ``[tokens, vocab]``."""
    prompt, generated = choice["prompt_token_ids"], choice["token_ids"]
    with torch.no_grad():
        logits = reference(torch.tensor([prompt + generated])).logits[0].double()
    return torch.log_softmax(logits, dim=-1)[len(prompt) - 1 : -1]


def test_forced_tokens_come_first_with_their_own_probabilities(
    client: Client, reference: Any
) -> None:
    bias = [{"token_id": FORCED[0], "add": 3.0}]
    choice = client.choice(
        PROMPT,
        max_tokens=6,
        logit_control={"force": {"token_ids": FORCED}, "bias": bias},
        distribution=BOTH,
    )
    generated, told = choice["token_ids"], choice["distribution"]
    assert generated[:4] == FORCED
    base = rows_of(reference, choice)
    controlled = base.clone()
    controlled[:, FORCED[0]] += 3.0
    controlled = torch.log_softmax(controlled, dim=-1)
    assert generated[4:] == controlled[4:].argmax(dim=-1).tolist()
    chosen = torch.tensor(generated).unsqueeze(1)
    for stage, wanted in (("base", base), ("controlled", controlled)):
        assert np.abs(array(told[stage]["logprobs"]) - wanted.numpy()).max() <= 1e-3
        own = wanted.gather(1, chosen)
        got = array(told["sampled"][f"{stage}_logprob"])
        assert np.abs(got - own.squeeze(1).numpy()).max() <= 1e-3
        assert (
            array(told["sampled"][f"{stage}_rank"]).tolist()
            == ((wanted > own).sum(dim=1) + 1).tolist()
        )
    assert array(told["sampled"]["base_rank"])[3] > 1, "Lyon was the model's own choice"


def test_no_way_of_sampling_gets_past_a_forced_token(
    client: Client, request: pytest.FixtureRequest
) -> None:
    # vLLM's own kernel of top-k and top-p is none that Triton's interpreter can run.
    narrow = request.node.callspec.params["client"] == "v1"
    ways: list[dict[str, Any]] = [
        {},
        {"temperature": 1.5, "seed": 1, **({"top_p": 0.05} if narrow else {})},
        {"temperature": 1.0, "min_p": 0.9, **({"top_k": 1} if narrow else {})},
        {"repetition_penalty": 2.0, "presence_penalty": 2.0, "frequency_penalty": 2.0},
        {"temperature": 0.7, "logprobs": 3},
    ]
    # Neighbours force other tokens, or none.
    forces = [FORCED, FORCED[::-1], [28] * 6, FORCED * 2, FORCED[:1]]
    requests = [
        {"prompt": PROMPT, "logit_control": {"force": {"token_ids": force}}, **way}
        for way, force in zip(ways, forces, strict=True)
    ]
    free, *choices = client.together([{"prompt": PROMPT}, *requests])
    for force, choice in zip(forces, choices, strict=True):
        assert choice["token_ids"][: len(force)] == force
        assert len(choice["token_ids"]) == 8
    assert free["token_ids"] == client.choice(PROMPT)["token_ids"]


def test_forcing_what_would_come_changes_nothing(v1: Client) -> None:
    free = v1.choice(PROMPT, distribution=BOTH)
    force = {"token_ids": free["token_ids"][:5]}
    forced = v1.choice(PROMPT, logit_control={"force": force}, distribution=BOTH)
    assert forced["token_ids"] == free["token_ids"]
    told = [array(each["distribution"]["controlled"]["logprobs"]) for each in (free, forced)]
    assert np.abs(told[0] - told[1]).max() <= 1e-3
    assert not array(forced["distribution"]["kl"]).any()


def test_every_choice_begins_with_a_forced_text(v1: Client) -> None:
    body = {**CHAT, "n": 3, "temperature": 1.2, "logit_control": {"force": {"text": LYON}}}
    choices = v1.http.post("/v1/chat/completions", json=body).json()["choices"]
    texts = [choice["message"]["content"] for choice in choices]
    assert len(set(texts)) == 3
    assert all(text.startswith(LYON) for text in texts)


def test_a_stream_carries_forced_tokens_as_they_come(v1: Client) -> None:
    control = {"force": {"text": LYON}}
    events = v1.events("/v1/chat/completions", {**CHAT, "logit_control": control, "logprobs": True})
    parts = [event["choices"][0]["delta"].get("content", "") for event in events]
    assert "".join(parts).startswith(LYON)
    first = events[1]["choices"][0]["logprobs"]["content"][0]
    assert first["token"] == " a"
    assert first["logprob"] < 0, "its own probability, not that of a certain event"


@pytest.mark.parametrize(
    ("force", "fields", "tokens", "reason"),
    [
        ([2240, 2, 3365], {"ignore_eos": False}, [2240, 2], "stop"),
        ([2240, 2, 3365], {}, [2240, 2, 3365], "length"),
        (FORCED, {"stop": ["named"]}, FORCED[:3], "stop"),
        (FORCED, {"stop_token_ids": [FORCED[1]]}, FORCED[:2], "stop"),
    ],
    ids=["end of text", "ignored end of text", "stop string", "stop token"],
)
def test_forced_tokens_end_a_text_as_others_do(
    v1: Client, force: list[int], fields: dict[str, Any], tokens: list[int], reason: str
) -> None:
    control = {"force": {"token_ids": force}}
    choice = v1.choice(PROMPT, max_tokens=len(force), logit_control=control, **fields)
    assert (choice["token_ids"], choice["finish_reason"]) == (tokens, reason)


def test_a_force_that_is_longer_than_the_text_may_be_ends_with_it(v1: Client) -> None:
    control = {"force": {"token_ids": FORCED * 4000}}
    choice = v1.choice(PROMPT, max_tokens=6, logit_control=control)
    assert (choice["token_ids"], choice["finish_reason"]) == ([*FORCED, *FORCED[:2]], "length")


def test_what_forbids_a_forced_token_ends_only_its_request(v1: Client) -> None:
    force = {"force": {"text": LYON}}
    forbidding: list[dict[str, Any]] = [
        {"logit_control": {**force, "suppress": [{"text": "named"}]}},
        {"logit_control": force, "structured_outputs": {"choice": ["yes", "no"]}},
        {"logit_control": force, "bad_words": [" city"]},
        {"logit_control": {"force": {"token_ids": [2]}}, "min_tokens": 4, "ignore_eos": False},
    ]
    for fields in forbidding:
        body = {"model": MODEL, "prompt": PROMPT, "max_tokens": 8, **fields}
        status, error = v1.refused("/v1/completions", body)
        assert (status, error["param"]) == (400, "logit_control.force"), fields
    grammar = {"structured_outputs": {"choice": ["yes", "no"]}, "ignore_eos": False}
    spared = v1.choice(PROMPT, logit_control={"force": {"text": "no"}}, **grammar)
    assert spared["text"] == "no"
