"""Residual steering over HTTP: against transformers, out of the prefix cache, beside others."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from logit_processors.controls.steer import SteerEntry
from tests.entries import span, steer_residual
from tests.integration import residual
from tests.integration.client import Client, array
from tests.integration.offline import vector
from tests.integration.residual import PROGRAMS, SEEN, Reference, answer_of, control, put_all
from tests.integration.servers import MODEL

ONE = steer_residual("one", 60.0)
REQUESTS = 150


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    return residual.prompts()


@pytest.fixture(scope="module")
def steered(reference: torch.nn.Module) -> Reference:
    return Reference(reference)


@pytest.fixture(scope="module")
def server(v1: Client) -> Client:
    put_all(v1)
    return v1


def test_every_row_of_a_mixed_batch_equals_transformers(
    server: Client, prompts: list[list[int]], steered: Reference
) -> None:
    batch = residual.requests(prompts, PROGRAMS, max_tokens=12)
    # Once computed, and once out of the prefix cache.
    for _ in range(2):
        for choice, prompt, program in zip(server.together(batch), prompts, PROGRAMS, strict=True):
            steered.check(answer_of(choice), prompt, program)


def test_the_v2_runner_steers_the_same(
    v2: Client, prompts: list[list[int]], steered: Reference
) -> None:
    put_all(v2)
    short = [prompt[:16] for prompt in prompts[:4]]
    batch = residual.requests(short, PROGRAMS[1:5], max_tokens=3)
    for choice, request, program in zip(v2.together(batch), batch, PROGRAMS[1:5], strict=True):
        steered.check(answer_of(choice), request["prompt"], program)


def test_no_order_of_requests_mixes_their_caches(
    server: Client, prompts: list[list[int]], steered: Reference
) -> None:
    kinds: list[tuple[SteerEntry, ...]] = [
        (),
        (ONE,),
        (steer_residual("one", -60.0),),
        (steer_residual("one", 60.0, when=span(None, -20)),),
    ]
    prompt = prompts[7]
    first: dict[tuple[SteerEntry, ...], dict[str, Any]] = {}
    for number, order in enumerate(itertools.islice(itertools.permutations(kinds), 0, None, 3)):
        for program in order:
            choice = server.choice(
                prompt,
                max_tokens=2,
                logit_control=control(program),
                distribution=SEEN,
                cache_salt=f"order {number}",
            )
            answer = answer_of(choice)
            if program not in first:
                first[program] = answer
                steered.check(answer, prompt, program)
            assert answer["tokens"] == first[program]["tokens"]
            np.testing.assert_allclose(answer["logprobs"], first[program]["logprobs"], atol=1e-3)
    assert len({tuple(answer["logprobs"]) for answer in first.values()}) == len(kinds)


def test_a_windowed_prompt_is_not_shared_with_its_continuation(
    server: Client, prompts: list[list[int]], steered: Reference
) -> None:
    """Positions are counted from a prompt's end, so its tokens stand elsewhere in a longer one."""
    program = (steer_residual("one", 60.0, when=span(-9, None)),)
    longest = prompts[7]
    for prompt in (longest[:-16], longest, longest[:-16]):
        choice = server.choice(
            prompt, max_tokens=3, logit_control=control(program), distribution=SEEN
        )
        steered.check(answer_of(choice), prompt, program)


@pytest.mark.alone
def test_equal_steering_shares_the_cache_and_other_steering_does_not(
    server: Client, prompts: list[list[int]]
) -> None:
    halves = (steer_residual("one", 30.0), steer_residual("one", 30.0, layers=(14,)))
    off = (steer_residual("one", 5.0), steer_residual("one", -5.0))
    prompt = prompts[7][::-1]
    expected: list[tuple[tuple[SteerEntry, ...], bool]] = [
        ((ONE,), False),
        ((), False),
        ((ONE,), True),
        (halves, True),
        (off, True),
        ((steer_residual("one", 61.0),), False),
    ]
    for program, shared in expected:
        before = server.prefix_cache_hits()
        server.choice(prompt, max_tokens=1, logit_control=control(program))
        assert (server.prefix_cache_hits() > before) == shared, program


IDENTITIES = {
    "strength 0": (steer_residual("everywhere", 0.0),),
    "there and back": (steer_residual("middle", 9.0), steer_residual("middle", -9.0)),
}


@pytest.mark.alone  # to the bit: neighbours change the order in which numbers are added
@pytest.mark.parametrize("name", IDENTITIES)
def test_what_changes_nothing_is_off(server: Client, name: str) -> None:
    program = IDENTITIES[name]
    for salt in ("a", "b"):
        plain, same = (
            server.choice(
                "The sea is",
                max_tokens=16,
                distribution=SEEN,
                cache_salt=f"{name} {salt}",
                **fields,
            )
            for fields in ({}, {"logit_control": control(program)})
        )
        assert answer_of(plain) == answer_of(same)


def test_two_halves_are_one(server: Client) -> None:
    one, halves = (
        server.choice("The sea is", max_tokens=16, logit_control=control(program))
        for program in (
            (steer_residual("everywhere", 2.0),),
            (steer_residual("everywhere", 1.0), steer_residual("everywhere", 1.0)),
        )
    )
    assert one["token_ids"] == halves["token_ids"]


def test_streams_and_choices_are_steered_alike(server: Client) -> None:
    request: dict[str, Any] = {
        "model": MODEL,
        "prompt": "The sea is",
        "max_tokens": 12,
        "temperature": 0,
        "ignore_eos": True,
        "logit_control": control((ONE,)),
    }
    whole = server.choice(**{k: v for k, v in request.items() if k != "model"})["text"]
    assert whole != server.choice("The sea is", max_tokens=12)["text"]
    streamed = server.events("/v1/completions", request)
    assert "".join(e["choices"][0]["text"] for e in streamed if e["choices"]) == whole
    several = {**request, "n": 3, "temperature": 1.0, "top_k": 1}
    choices = server.http.post("/v1/completions", json=several).json()["choices"]
    assert [choice["text"] for choice in choices] == [whole] * 3


def test_it_composes_with_control_of_the_logits(server: Client) -> None:
    """The base stage is what the steered model says; logit control comes after it."""
    both = {**control((ONE,)), "bias": [{"token_id": 17, "add": 3.0}]}
    seen = {"top_k": "all", "stages": ["base", "controlled"]}
    alone = server.choice("The sea", max_tokens=1, logit_control=control((ONE,)), distribution=seen)
    mixed = server.choice("The sea", max_tokens=1, logit_control=both, distribution=seen)
    one, base, controlled = (
        array(choice["distribution"][stage]["logprobs"])[0]
        for choice, stage in ((alone, "base"), (mixed, "base"), (mixed, "controlled"))
    )
    np.testing.assert_allclose(base, one, atol=1e-4)
    shift = controlled - base
    assert abs(shift[17] - shift[18] - 3.0) <= 1e-3


def test_many_mixed_requests_do_not_touch_one_another(server: Client) -> None:
    rng = random.Random(7)
    starts = ["The sea is", "A city by the river", "Count: one, two,", "My friend says", "Once"]
    texts = [f"{start} {end}" for start in starts for end in ("and", "so", "that the")]
    plain: list[dict[str, Any]] = [{"prompt": text, "distribution": SEEN} for text in texts]
    alone = [answer_of(server.choice(**request)) for request in plain]
    kinds: list[Callable[[], dict[str, Any]]] = [
        lambda: control((steer_residual("everywhere", rng.uniform(-3, 3)),)),
        lambda: control((steer_residual("one", rng.choice([-60.0, 60.0])),)),
        lambda: control((steer_residual("middle", 5.0, when=span(rng.randint(-4, 2))),)),
        lambda: {"suppress": [{"text": "e"}]},
        lambda: {"bias": [{"token_id": rng.randrange(49152), "add": 50.0}]},
    ]
    batch: list[dict[str, Any]] = []
    plain_at: dict[int, int] = {}
    for at in range(REQUESTS):
        which = rng.randrange(len(plain))
        if rng.random() < 0.4:
            plain_at[at] = which
            batch.append(plain[which])
        else:
            fields = {"prompt": texts[which], "max_tokens": rng.randint(1, 8)}
            batch.append({**fields, "logit_control": rng.choice(kinds)()})
    answers: list[dict[str, Any]] = []
    for start in range(0, REQUESTS, 50):
        answers += server.together(batch[start : start + 50])
    assert len(plain_at) > REQUESTS / 5
    for at, which in plain_at.items():
        found = answer_of(answers[at])
        assert found["tokens"] == alone[which]["tokens"]
        np.testing.assert_allclose(found["logprobs"], alone[which]["logprobs"], atol=2e-3)


def test_a_vector_deleted_while_a_request_runs_with_it(server: Client) -> None:
    rows = vector("brief", [5, 20])
    body = safetensors.numpy.save({"layer.5": rows[0], "layer.20": rows[1]})
    assert server.http.put("/v1/vectors/brief-residual", content=body).is_success
    request = {
        "model": MODEL,
        "prompt": "The sea is",
        "max_tokens": 40,
        "temperature": 0,
        "ignore_eos": True,
        "logit_control": control((steer_residual("brief-residual", 20.0),)),
    }
    undisturbed = server.http.post("/v1/completions", json=request).json()["choices"][0]["text"]
    parts: list[str] = []
    with server.http.stream("POST", "/v1/completions", json={**request, "stream": True}) as lines:
        for line in lines.iter_lines():
            if line.startswith("data: {"):
                parts.append(line)
                if len(parts) == 3:
                    assert server.http.delete("/v1/vectors/brief-residual").status_code == 204
    assert server.refused("/v1/completions", request)[0] == 404
    texts = [event["choices"][0]["text"] for event in map(_event, parts)]
    assert "".join(texts) == undisturbed


def _event(line: str) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(line.removeprefix("data: "))
    return event


REFUSED = [
    ({"vector": "nobody", "strength": 1}, 404, "vector", "nobody"),
    ({"vector": "one", "strength": 1, "layers": [13]}, 400, "layers", "[14]"),
    ({"vector": "one", "strength": 1, "layers": []}, 400, "layers", "at least 1"),
    ({"vector": "one", "strength": 1, "layers": [-1]}, 400, "layers[0]", "0"),
    ({"vector": "one", "strength": 1e9}, 400, "strength", "10000"),
    ({"vector": "one", "strength": 1, "when": {"from": 4, "until": 4}}, 400, "when.until", "4"),
    ({"vector": "flat", "strength": 1}, 400, "vector", "unembedding"),
]


@pytest.mark.parametrize(("entry", "status", "field", "words"), REFUSED)
def test_what_cannot_be_is_refused_at_its_path(
    server: Client, entry: dict[str, Any], status: int, field: str, words: str
) -> None:
    flat = safetensors.numpy.save({"direction": np.arange(576, dtype=np.float32)})
    assert server.http.put("/v1/vectors/flat", content=flat).is_success
    steer = [{"at": "residual", **entry}]
    body = {"model": MODEL, "prompt": "The", "logit_control": {"steer": steer}}
    found, error = server.refused("/v1/completions", body)
    assert (found, error["param"]) == (status, f"logit_control.steer[0].{field}")
    assert words in error["message"]
