"""The residual stream of prompts, from an engine that gives what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import numpy as np
import pytest
from vllm.outputs import CompletionOutput, RequestOutput

from service.engine.prompt_states import PromptStates
from service.errors import SaturatedError

LAYERS, HIDDEN = (3, 5), 4


class Engine:
    """Answers a prompt with its number of tokens in every place of its stream."""

    def __init__(self) -> None:
        self.running: dict[str, int] = {}
        self.most = 0
        self.fetched: list[str] = []
        self.answers: list[Any] | None = None
        """What workers answer instead."""
        self.may_run = asyncio.Event()
        self.may_run.set()

    async def generate(
        self, prompt: Any, _params: Any, tag: str, **_: Any
    ) -> AsyncGenerator[Any, None]:
        self.running[tag] = len(prompt["prompt_token_ids"])
        self.most = max(self.most, len(self.running))
        await self.may_run.wait()
        output = CompletionOutput(0, "", [], None, None)
        yield RequestOutput(tag, None, prompt["prompt_token_ids"], None, [output], finished=True)

    async def collective_rpc(self, _method: str, _timeout: None, args: tuple[str]) -> list[Any]:
        await asyncio.sleep(0)
        (tag,) = args
        self.fetched.append(tag)
        length = self.running.pop(tag)
        if self.answers is not None:
            return self.answers
        # Two ranks of a pipeline, and one that runs none of the layers.
        one = np.full(HIDDEN, length, np.float32)
        return [{"layers": [layer], "data": (layer * one).tobytes()} for layer in LAYERS] + [None]


async def taken(states: PromptStates, prompts: list[list[int]], last: int) -> dict[int, Any]:
    return {at: stream async for at, stream in states.take(prompts, LAYERS, last)}


async def test_each_prompt_has_its_stream_of_the_layers_of_all_ranks() -> None:
    streams = await taken(PromptStates(Engine()), [[1], [1, 2], [1, 2, 3]], 1)
    assert {at: stream[:, 0].tolist() for at, stream in streams.items()} == {
        at: [3.0 * (at + 1), 5.0 * (at + 1)] for at in range(3)
    }


@pytest.mark.parametrize(("last", "most"), [(1, 64), (32, 2), (33, 1), (64, 1)])
async def test_no_more_are_at_work_than_the_workers_have_room_for(last: int, most: int) -> None:
    engine = Engine()
    assert len(await taken(PromptStates(engine), [[1] * 70] * 70, last)) == 70
    assert engine.most == most


async def test_who_waits_has_a_turn_between_two_groups() -> None:
    engine = Engine()
    states = PromptStates(engine)
    ended: list[str] = []

    async def take(name: str, count: int) -> None:
        await taken(states, [[1]] * count, 64)
        ended.append(name)

    await asyncio.gather(take("long", 9), take("short", 1))
    assert ended == ["short", "long"]


async def test_what_a_client_that_left_had_captured_is_fetched_all_the_same() -> None:
    engine = Engine()
    engine.may_run.clear()
    taking = asyncio.create_task(taken(PromptStates(engine), [[1]], 1))
    while not engine.running:
        await asyncio.sleep(0)
    taking.cancel()
    await asyncio.wait([taking])
    assert taking.cancelled()
    while engine.running:
        await asyncio.sleep(0)
    assert len(engine.fetched) == 1


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([{"failure": "more than 64 tokens"}, None], "more than 64 tokens; send it again"),
        ([None], "took the room"),
        ([{"layers": [3], "data": bytes(4 * HIDDEN)}], "took the room"),
    ],
)
async def test_a_capture_that_failed_may_be_sent_again(answers: list[Any], words: str) -> None:
    engine = Engine()
    engine.answers = answers
    with pytest.raises(SaturatedError, match=words):
        await taken(PromptStates(engine), [[1]], 1)


@pytest.mark.parametrize(
    ("positions", "cached", "whole"),
    [([0], 1, 1), ([3, 60], 61, 61), ([0, 63, 64, 200], 201, 64 + 65 + 201)],
)
def test_without_a_cache_each_part_passes_with_all_before_it(
    positions: list[int], cached: int, whole: int
) -> None:
    assert PromptStates(None).passes(positions) == cached
    assert PromptStates(None, is_cached=False).passes(positions) == whole
