"""Control where the engine preempts, or where nothing is left to say."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

from tests.faults.report import Report
from tests.faults.streams import (
    STEERED,
    Watched,
    ask,
    client_of,
    completion,
    metric,
    read_to_end,
    watch,
)
from tests.integration.servers import Server

END = 2
"""The model's end of turn."""


async def test_steering_survives_preemption(server: Server, report: Report) -> None:
    with report.row("preemption of requests with bias and steering", "the same tokens") as row:
        prompts = [
            " ".join(f"Item {at} of list {number}." for at in range(12)) for number in range(11)
        ]
        async with client_of(server) as client:
            body: dict[str, Any] = {"tokens": 56, "logit_control": STEERED}
            alone = [await ask(client, prompt=prompt, **body) for prompt in prompts[:3]]
            before = await metric(client, "vllm:num_preemptions_total")
            asked = (ask(client, prompt=prompt, **body) for prompt in prompts)
            beside = await asyncio.gather(*asked)
            preempted = await metric(client, "vllm:num_preemptions_total") - before
        assert preempted > 0, "nothing was preempted: this test could not fail"
        assert [one["choices"] for one in alone] == [one["choices"] for one in beside[:3]]
        row.observed = f"the same tokens of {len(alone)} requests, {preempted:.0f} preempted"


async def test_a_program_without_a_way_out_ends_its_own_request(
    server: Server, report: Report
) -> None:
    with report.row("suppression against a grammar, and of the end", "that request alone") as row:
        neighbour = Watched()
        doomed = {
            "structured_outputs": {"choice": ["yes", "no"]},
            "logit_control": {"suppress": [{"text": "y"}, {"text": "n"}]},
        }
        wanted = {"bias": [{"token_id": END, "add": 100}]}
        endless = wanted | {"suppress": [{"token_id": END}]}
        async with client_of(server) as client:
            beside = asyncio.create_task(watch(client, completion(1, 60), neighbour))
            for choices in (1, 2):
                with pytest.raises(openai.APIError) as raised:
                    await read_to_end(server, completion(n=choices, temperature=1) | doomed)
                assert raised.value.param == "logit_control.suppress"
            ends = [
                await ask(client, tokens=60, ignore_eos=False, logit_control=control)
                for control in (wanted, endless)
            ]
            await beside
        assert [end["choices"][0]["finish_reason"] for end in ends] == ["stop", "length"]
        assert neighbour.done
        assert neighbour.finish_reasons == ["length"]
        row.observed = "an error in its stream; text up to the cap; the neighbour whole"
