"""Control where the engine preempts, or where nothing is left to say."""

from __future__ import annotations

import asyncio

import openai
import pytest

from tests.faults.report import Report
from tests.faults.streams import (
    Watched,
    ask,
    client_of,
    completion,
    read_to_end,
    watch,
)
from tests.integration.client import Client

pytestmark = pytest.mark.xdist_group("faults")

END = 2
"""The model's end of turn."""


async def test_a_program_without_a_way_out_ends_its_own_request(v1: Client, report: Report) -> None:
    server = v1.server
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
