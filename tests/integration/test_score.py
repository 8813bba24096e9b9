"""Scores of continuations against transformers, and against what generation tells."""

from __future__ import annotations

from collections.abc import Callable
from math import exp
from typing import Any

import numpy as np
import orjson
import pyarrow.compute as pc
import pytest
import safetensors.numpy
import torch

from tests.integration.arrow_client import table as arrow
from tests.integration.client import Client
from tests.integration.servers import MODEL

PROMPT = "The capital of France is"
CONTINUATIONS: list[Any] = [" Paris.", " a city named Lyon", [253, 2240], "\n\n", " the largest"]
LAYER = 14
BIAS: dict[str, Any] = {"token_id": 2240, "add": 4.0, "when": {"from": 1}}

LogprobsOf = Callable[[list[int], list[int]], torch.Tensor]
"""Prompt and continuation -> log-probabilities ``[continuation, vocab]`` float64."""


def score(client: Client, continuations: list[Any], **fields: Any) -> list[dict[str, Any]]:
    """Return the scores of continuations of the prompt."""
    body = {"prompt": PROMPT, "continuations": continuations, **fields}
    answer = client.http.post("/v1/score", json=body)
    assert answer.is_success, answer.text
    found: list[dict[str, Any]] = answer.json()["continuations"]
    return found


@pytest.fixture
def logprobs_of(reference: Any) -> LogprobsOf:
    """What transformers says."""

    def logprobs(prompt: list[int], wanted: list[int]) -> torch.Tensor:
        with torch.no_grad():
            logits = reference(torch.tensor([prompt + wanted])).logits[0].double()
        return torch.log_softmax(logits, dim=-1)[len(prompt) - 1 : -1]

    return logprobs


@pytest.fixture(scope="module")
def prompt(v1: Client) -> list[int]:
    found: list[int] = v1.choice(PROMPT, max_tokens=1)["prompt_token_ids"]
    return found


def check(told: dict[str, Any], wanted: list[int], logprobs: torch.Tensor) -> None:
    """Compare one stage of one continuation with log-probabilities ``[tokens, vocab]``."""
    chosen = logprobs.gather(1, torch.tensor(wanted).unsqueeze(1))
    own = chosen.squeeze(1).numpy()
    assert np.abs(np.array(told["logprobs"]) - own).max() <= 1e-3
    assert told["ranks"] == ((logprobs > chosen).sum(dim=1) + 1).tolist()
    entropy = -(logprobs.exp() * logprobs).sum(dim=1).numpy()
    assert np.abs(np.array(told["entropies"]) - entropy).max() <= 1e-3
    assert [best["token_id"] for best in told["best"]] == logprobs.argmax(dim=1).tolist()
    highest = [best["logprob"] for best in told["best"]]
    assert np.abs(np.array(highest) - logprobs.amax(dim=1).numpy()).max() <= 1e-3
    # The mean of cross entropies, as a training loop has it.
    assert abs(told["loss"] - -own.mean()) <= 1e-3
    assert told["perplexity"] == pytest.approx(exp(told["loss"]))
    apart = [at for at, rank in enumerate(told["ranks"]) if rank > 1]
    assert told["parts_at"] == (apart[0] if apart else None)


def test_losses_equal_transformers(v1: Client, prompt: list[int], logprobs_of: LogprobsOf) -> None:
    scores = score(v1, CONTINUATIONS)
    assert [each["index"] for each in scores] == [0, 1, 2, 3, 4]
    assert scores[2]["token_ids"] == CONTINUATIONS[2]
    for text, told in zip(CONTINUATIONS, scores, strict=True):
        assert isinstance(text, list) or "".join(told["tokens"]) == text
        assert "controlled" not in told
        check(told["base"], told["token_ids"], logprobs_of(prompt, told["token_ids"]))


# Blocks of the cache have 32 tokens: a prompt that fills them, and one that ends inside.
@pytest.mark.alone
@pytest.mark.parametrize("size", [64, 95])
def test_continuations_share_the_prompt(v1: Client, logprobs_of: LogprobsOf, size: int) -> None:
    # Plain text, whose tokens rank high, where no two are as good as tied.
    told = v1.choice(f"{size} pages. " + "The river runs to the sea. " * 30, max_tokens=1)
    text = told["prompt_token_ids"]
    prompt, long, short = text[:size], text[size : size + 70], text[size : size + 3]
    before = v1.prefix_cache_hits()
    # The whole text is in the cache by now, of which only the prompt's blocks may be used.
    for wanted in (long, short, long[:40], long):
        (scored,) = score(v1, [wanted], prompt=prompt)
        check(scored["base"], wanted, logprobs_of(prompt, wanted))
    whole_blocks = (size - 1) // 32 * 32
    assert v1.prefix_cache_hits() - before == 4 * whole_blocks


def test_control_is_applied_position_by_position(
    v1: Client, prompt: list[int], logprobs_of: LogprobsOf
) -> None:
    control = {"bias": [BIAS], "suppress": [{"token_id": 28}]}
    for told in score(v1, CONTINUATIONS, logit_control=control):
        base = logprobs_of(prompt, told["token_ids"])
        check(told["base"], told["token_ids"], base)
        logits = base.clone()
        logits[1:, BIAS["token_id"]] += BIAS["add"]
        logits[:, 28] = -1e9
        check(told["controlled"], told["token_ids"], torch.log_softmax(logits, dim=-1))


def test_control_that_does_nothing_agrees_with_none(v1: Client) -> None:
    # One is read off the prompt in one pass, the other generated a token a step.
    control = {"bias": [{"token_id": 28, "add": 0.0}]}
    for told in score(v1, CONTINUATIONS, logit_control=control):
        assert told["controlled"]["ranks"] == told["base"]["ranks"]
        assert told["controlled"]["loss"] == pytest.approx(told["base"]["loss"], abs=1e-3)


def test_residual_steering_is_in_the_controlled_score_alone(
    v1: Client, reference: Any, prompt: list[int], logprobs_of: LogprobsOf
) -> None:
    vector = np.random.default_rng(5).standard_normal(576).astype(np.float32)
    body = safetensors.numpy.save({f"layer.{LAYER}": vector})
    assert v1.http.put("/v1/vectors/score-residual", content=body).is_success
    steer = {"vector": "score-residual", "strength": 1.0, "at": "residual"}
    (told,) = score(v1, [" a city named Lyon"], logit_control={"steer": [steer]})
    wanted = told["token_ids"]
    check(told["base"], wanted, logprobs_of(prompt, wanted))

    def add(_layer: Any, _arguments: Any, output: Any) -> Any:
        return output + torch.from_numpy(vector)

    hook = reference.model.layers[LAYER].register_forward_hook(add)
    try:
        steered = logprobs_of(prompt, wanted)
    finally:
        hook.remove()
    assert abs(steered - logprobs_of(prompt, wanted)).max() > 0.1, "this test could not fail"
    check(told["controlled"], wanted, steered)


def test_arrow_says_the_same_as_json(v1: Client) -> None:
    fields: dict[str, Any] = {"logit_control": {"bias": [BIAS]}}
    scores = score(v1, CONTINUATIONS, **fields)
    table = arrow(v1, "/v1/score", {"prompt": PROMPT, "continuations": CONTINUATIONS, **fields})
    about = orjson.loads(table.schema.metadata[b"sensefield.response"])
    assert len(about["continuations"]) == len(scores)
    for at, told in enumerate(scores):
        rows = table.filter(pc.field("continuation") == at).to_pydict()
        assert rows["token_id"] == told["token_ids"]
        assert rows["token"] == told["tokens"]
        for stage in ("base", "controlled"):
            own = told[stage]
            assert rows[f"{stage}_logprob"] == pytest.approx(own["logprobs"], abs=1e-4)
            assert rows[f"{stage}_rank"] == own["ranks"]
            assert rows[f"{stage}_entropy"] == pytest.approx(own["entropies"], abs=1e-4)
            assert rows[f"{stage}_best_token"] == [best["token"] for best in own["best"]]
            loss = about["continuations"][at][stage]["loss"]
            assert loss == pytest.approx(own["loss"], abs=1e-4)


def test_a_chat_is_scored_where_the_assistant_speaks(v1: Client) -> None:
    messages = [{"role": "user", "content": "Name a colour."}]
    body: dict[str, Any] = {"messages": messages, "model": MODEL}
    asked = {**body, "continuations": [" Blue", "Blue"]}
    answer = v1.http.post("/v1/score", json=asked).json()
    forced = {"max_tokens": 1, "logprobs": True, "logit_control": {"force": {"text": "Blue"}}}
    chat = v1.http.post("/v1/chat/completions", json=body | forced).json()
    assert answer["prompt_tokens"] == chat["usage"]["prompt_tokens"]
    own = chat["choices"][0]["logprobs"]["content"][0]["logprob"]
    assert answer["continuations"][1]["base"]["logprobs"][0] == pytest.approx(own, abs=1e-3)


REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"continuations": []}, 400, "continuations"),
    ({"continuations": [" a", ""]}, 400, "continuations[1]"),
    ({"continuations": [" a", []]}, 400, "continuations[1]"),
    ({"continuations": [[1, 49152]]}, 400, "continuations[0][1]"),
    ({"continuations": [[1] * 1100]}, 400, "continuations[0]"),
    ({"continuations": [" a"] * 257}, 400, "continuations"),
    ({"prompt": [1] * 1022 + [49152]}, 400, "prompt[1022]"),
    ({"prompt": [1] * 1020, "continuations": [[1] * 3] * 256}, 400, "continuations"),
    ({"prompt": [1] * 1024}, 400, "prompt"),
    ({"prompt": ""}, 400, "prompt"),
    ({"prompt": None}, 400, "body"),
    ({"messages": [{"role": "user", "content": "a"}]}, 400, "body"),
    ({"model": "another"}, 404, "model"),
    ({"logit_control": {"force": {"text": "a"}}}, 400, "logit_control.force"),
    ({"logit_control": {"suppress": [{"text": " a"}]}}, 400, "continuations[0]"),
    ({"continuations": [[7]], "logit_control": {"suppress": [{"token_id": 7}]}}, 400,
     "continuations[0]"),
    ({"logit_control": {"steer": [{"vector": "absent", "strength": 1}]}}, 404,
     "logit_control.steer[0].vector"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "status", "param"), REFUSED)
def test_what_cannot_be_scored_is_refused(
    v1: Client, fields: dict[str, Any], status: int, param: str
) -> None:
    body = {"prompt": PROMPT, "continuations": [" a"], **fields}
    got, error = v1.refused("/v1/score", body)
    assert (got, error["param"]) == (status, param), error
