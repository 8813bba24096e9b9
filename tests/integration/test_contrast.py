"""Vectors of contrasting prompts, made by the serving engine."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer

from service.embedded_model import embedded_model_dir
from service.vectors.contrast import METHODS
from tests.integration.client import Client
from tests.integration.servers import MODEL

POSITIVE = ["I am so happy about this", "What a wonderful day", "I love every bit of it"]
NEGATIVE = ["I am so sad about this", "What a terrible day", "I hate every bit of it"]


def encoded(prompts: list[Any]) -> list[list[int]]:
    tokenizer = AutoTokenizer.from_pretrained(embedded_model_dir())
    found = []
    for prompt in prompts:
        text = prompt
        if isinstance(prompt, list):
            text = tokenizer.apply_chat_template(
                prompt, tokenize=False, continue_final_message=True
            )
        found.append(tokenizer.encode(text))
    return found


def streams(model: Any, prompts: list[Any], last: int) -> NDArray[np.float64]:
    """Return transformers' residual streams, the mean over the last tokens, after each layer.

    ``[prompts, layers, hidden]``. The hidden states that transformers returns end with the
    final norm applied, so the streams are taken by hooks.
    """
    found = []
    for tokens in encoded(prompts):
        own: list[NDArray[np.float64]] = []
        handles = [
            layer.register_forward_hook(
                lambda _module, _arguments, output, own=own: own.append(
                    output[0, -last:].double().numpy().mean(axis=0)
                )
            )
            for layer in model.model.layers
        ]
        with torch.no_grad():
            model(torch.tensor([tokens]))
        for handle in handles:
            handle.remove()
        found.append(np.stack(own))
    return np.stack(found)


def close(found: NDArray[Any], wanted: NDArray[Any]) -> bool:
    """Say whether vectors are the same but for rounding; a sign is a choice of nobody's."""
    return bool(np.abs(found - wanted).max() <= 2e-3 * np.abs(wanted).max())


@pytest.mark.parametrize(("method", "last"), [("mean_difference", 1), ("pca", 3)])
def test_a_contrast_equals_transformers(
    v1: Client, reference: torch.nn.Module, method: str, last: int
) -> None:
    contrast = {
        "positive": POSITIVE,
        "negative": NEGATIVE,
        "layers": [20, 4, 29],
        "method": method,
        "last": last,
    }
    body = {"name": "made", "from": {"contrast": contrast}, "replace": True}
    made = v1.http.post("/v1/vectors", json=body)
    assert made.is_success, made.text
    assert made.json()["layers"] == [4, 20, 29]
    assert made.json()["model"] == MODEL
    sides = [streams(reference, side, last)[:, [4, 20, 29]] for side in (POSITIVE, NEGATIVE)]
    wanted = METHODS[method](sides[0], sides[1])
    found = safetensors.numpy.load(v1.http.get("/v1/vectors/made/content").content)
    for layer, vector in zip((4, 20, 29), wanted, strict=True):
        assert close(found[f"layer.{layer}"], vector)


def test_chats_go_through_the_template(v1: Client, reference: torch.nn.Module) -> None:
    sides = [
        [[{"role": "user", "content": "How are you?"}, {"role": "assistant", "content": text}]]
        for text in ("Splendid, thanks", "Miserable, sadly")
    ]
    contrast = {"positive": sides[0], "negative": sides[1]}
    body = {"name": "chats", "from": {"contrast": contrast}, "replace": True}
    assert v1.http.post("/v1/vectors", json=body).is_success
    wanted = streams(reference, sides[0], 1)[0] - streams(reference, sides[1], 1)[0]
    found = safetensors.numpy.load(v1.http.get("/v1/vectors/chats/content").content)
    assert len(found) == 30
    assert all(close(found[f"layer.{layer}"], wanted[layer]) for layer in range(30))


def test_hundreds_of_prompts_beside_a_request_that_does_not_notice(v1: Client) -> None:
    request: dict[str, Any] = {"prompt": "The sea is", "max_tokens": 60, "logprobs": 0}
    alone = v1.choice(**request)
    contrast = {
        "positive": [f"I like number {number} very much" for number in range(150)],
        "negative": [f"I dislike number {number}" for number in range(150)],
        "layers": [15],
        "method": "pca",
    }
    body = {"name": "many", "from": {"contrast": contrast}, "stream": True, "replace": True}
    streaming = v1.http.stream("POST", "/v1/vectors", json=body)
    with ThreadPoolExecutor(1) as pool, streaming as answer:
        lines = answer.iter_lines()
        first = next(line for line in lines if line)
        beside = pool.submit(v1.choice, **request)
        events = [line for line in lines if line]
    assert json.loads(first.removeprefix("data: "))["total"] == 300
    assert events.pop() == "data: [DONE]"
    told = [json.loads(event.removeprefix("data: ")) for event in events]
    assert [event["done"] for event in told[:-1]] == list(range(1, 301))
    assert told[-1]["name"] == "many"
    assert beside.result()["token_ids"] == alone["token_ids"]
    np.testing.assert_allclose(
        beside.result()["logprobs"]["token_logprobs"],
        alone["logprobs"]["token_logprobs"],
        atol=2e-3,
    )


def test_what_one_side_cannot_be(v1: Client) -> None:
    long = "word " * 2000
    for contrast, param in (
        ({"positive": [], "negative": ["a"]}, "from.contrast.positive"),
        ({"positive": ["a"], "negative": [long]}, "from.contrast.negative[0]"),
        ({"positive": ["a"], "negative": ["b"], "layers": [30]}, "from.contrast.layers"),
    ):
        body = {"name": "bad", "from": {"contrast": contrast}}
        status, error = v1.refused("/v1/vectors", body)
        assert (status, error["param"]) == (400, param)
    assert v1.http.get("/v1/vectors/bad").status_code == 404
