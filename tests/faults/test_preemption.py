"""Too little KV cache for all requests: prompts in chunks, requests preempted, and no row amiss."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from transformers import AutoTokenizer

from service.embedded_model import embedded_model_dir
from tests.faults.report import Report
from tests.faults.streams import STEERED, ask, client_of, metric
from tests.integration import residual
from tests.integration.arrow_client import stream
from tests.integration.client import Client, array
from tests.integration.residual import PROGRAMS, Reference, answer_of
from tests.integration.servers import Server
from tests.integration.test_isolation import PROMPT, SEEN, STRONG
from tests.integration.test_prompt_rows import LONG, check_prompt_of

pytestmark = pytest.mark.xdist_group("faults")

FORCING: dict[str, Any] = {"force": {"token_ids": list(range(1000, 1016))}}


async def test_steering_survives_preemption(server: Server, report: Report) -> None:
    with report.row("preemption of requests with bias and steering", "the same tokens") as row:
        prompts = [
            " ".join(f"Item {at} of list {number}." for at in range(12)) for number in range(9)
        ]
        async with client_of(server) as client:
            body: dict[str, Any] = {"tokens": 40, "logit_control": STEERED}
            alone = [await ask(client, prompt=prompt, **body) for prompt in prompts[:2]]
            before = await metric(client, "vllm:num_preemptions_total")
            asked = (ask(client, prompt=prompt, **body) for prompt in prompts)
            beside = await asyncio.gather(*asked)
            preempted = await metric(client, "vllm:num_preemptions_total") - before
        assert preempted > 0, "nothing was preempted: this test could not fail"
        assert [one["choices"] for one in alone] == [one["choices"] for one in beside[:2]]
        row.observed = f"the same tokens of {len(alone)} requests, {preempted:.0f} preempted"


@pytest.fixture
def crowded(server: Server) -> Iterator[Client]:
    client = Client(server)
    yield client
    client.http.close()


@contextmanager
def preempting(client: Client) -> Iterator[None]:
    """Check that requests of the context were preempted: without that it proves nothing."""
    before = preemptions(client)
    yield
    assert preemptions(client) > before, "nothing was preempted: this test could not fail"


def preemptions(client: Client) -> float:
    lines = client.http.get("/metrics").text.splitlines()
    return sum(float(x.split()[-1]) for x in lines if x.startswith("vllm:num_preemptions_total"))


def test_seeds_control_and_rows_are_those_of_a_request_alone(crowded: Client) -> None:
    long_prompt = " ".join(f"Item {number} of the list." for number in range(40))
    requests: list[dict[str, Any]] = [
        {
            "prompt": f"{at}. {long_prompt}",
            "max_tokens": 20,
            "temperature": 1.0,
            "seed": at,
            "logit_control": ({}, STRONG, FORCING)[at % 3],
            "distribution": SEEN,
        }
        for at in range(6)
    ]
    with preempting(crowded):
        squeezed = crowded.together(requests)
    # One of each kind alone, and all of them whole.
    for request, choice in zip(requests[:3], squeezed, strict=False):
        free = crowded.choice(**request)
        assert choice["token_ids"] == free["token_ids"]
        rows = [array(c["distribution"]["controlled"]["logprobs"]) for c in (choice, free)]
        assert np.abs(rows[0] - rows[1]).max() <= 1e-3
    for choice in squeezed:
        assert choice["distribution"]["unseen"] == ["tests.faults.raising:Raising"]
        sampled = array(choice["distribution"]["sampled"]["token_id"]).tolist()
        assert sampled == choice["token_ids"], "a row was lost or doubled"


def test_no_row_of_an_arrow_stream_is_lost_or_doubled(crowded: Client) -> None:
    prompts = [f"{number}: {PROMPT} " * 6 for number in range(10)]
    wanted = {"top_k": "all", "dtype": "float16"}
    with preempting(crowded):
        streamed = stream(crowded, prompts, max_tokens=40, distribution=wanted)
    assert streamed.response is not None
    rows = streamed.table
    # This server has a processor of somebody else's.
    assert rows.schema.metadata[b"sensefield.unseen"] == b"tests.faults.raising:Raising"
    for choice in streamed.response["choices"]:
        mine = rows.filter(pc.equal(rows["choice"], choice["index"]))
        assert mine["position"].to_pylist() == list(range(40))
        assert mine["token_id"].to_pylist() == choice["token_ids"]
        values = mine["controlled_logprobs"].combine_chunks().flatten().to_numpy()
        likeliest = values.reshape(40, -1).max(axis=1)
        assert np.allclose(likeliest, mine["controlled_logprob"].to_numpy(), atol=2e-2)


def test_the_residual_stream_is_steered_as_in_transformers(
    crowded: Client, reference: torch.nn.Module
) -> None:
    residual.put_all(crowded)
    steered = Reference(reference)
    tokenizer = AutoTokenizer.from_pretrained(embedded_model_dir())
    prompts = [
        tokenizer.encode(f"{number}. {PROMPT}, {'and built houses, ' * 26}")
        for number in range(len(PROGRAMS))
    ]
    batch = residual.requests(prompts, PROGRAMS, max_tokens=16)
    with preempting(crowded):
        answers = crowded.together(batch)
    for choice, prompt, program in zip(answers, prompts, PROGRAMS, strict=True):
        steered.check(answer_of(choice), prompt, program)


def test_a_prompt_that_is_read_in_chunks_has_all_its_rows(
    crowded: Client, reference: torch.nn.Module
) -> None:
    check_prompt_of(crowded, reference, LONG)
