"""Grammars tried in a process of their own before the engine is asked."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncGenerator, Iterator
from contextvars import ContextVar
from typing import Any

import pytest
from vllm.config import VllmConfig
from vllm.exceptions import RetryableRequestError, VLLMValidationError
from vllm.sampling_params import SamplingParams, StructuredOutputsParams

from service.engine import grammar_gate
from service.engine.engine import SensefieldEngine
from service.engine.grammar_gate import GrammarGate, TriedGrammars
from service.engine.grammar_trial import Limits


@pytest.fixture(scope="module")
def gate(vllm_config: VllmConfig) -> Iterator[GrammarGate]:
    """A gate of the embedded model's server."""
    made = GrammarGate(vllm_config, Limits(cpu_seconds=2))
    yield made
    made.close()


class Engine:
    """Counts what it is asked, and answers with two outputs."""

    def __init__(self) -> None:
        self.asked = 0
        self.closed = 0

    async def generate(self, prompt: str, params: Any, request_id: str) -> AsyncGenerator[str]:
        self.asked += 1
        try:
            for at in range(2):
                yield f"{prompt} {params is not None} {request_id} {at}"
        finally:
            self.closed += 1


def grammar(regex: str) -> SamplingParams:
    return SamplingParams(structured_outputs=StructuredOutputsParams(regex=regex))


async def test_a_plain_request_goes_straight_to_the_engine() -> None:
    never = GrammarGate(None, Limits(1))
    engine = SensefieldEngine(Engine(), [TriedGrammars(never)])
    outputs = [output async for output in engine.generate("a", SamplingParams(), "1")]
    assert outputs == ["a True 1 0", "a True 1 1"]
    assert never._process is None


async def test_a_grammar_is_tried_first_and_once(gate: GrammarGate) -> None:
    stock = Engine()
    engine = SensefieldEngine(stock, [TriedGrammars(gate)])
    outputs = [output async for output in engine.generate("a", grammar("[a-c]+"), "1")]
    assert outputs == ["a True 1 0", "a True 1 1"]
    for _ in range(2):
        with pytest.raises(VLLMValidationError, match="too costly") as caught:
            _ = [output async for output in engine.generate("a", grammar(".?" * 40), "1")]
        assert caught.value.parameter == "structured_outputs"
    assert stock.asked == 1
    assert len(gate._known) == 2


async def test_what_is_known_does_not_wait_for_another_trial(
    gate: GrammarGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    await gate.check(grammar("[a-c]+"))
    tried, over = threading.Event(), threading.Event()

    def ask(params: SamplingParams) -> None:
        tried.set()
        assert over.wait(60)

    monkeypatch.setattr(gate, "_ask", ask)
    under_way = asyncio.create_task(gate.check(grammar("new")))
    await asyncio.to_thread(tried.wait, 60)
    await gate.check(grammar("[a-c]+"))
    assert not under_way.done()
    over.set()
    await under_way


async def test_one_tenant_waits_for_one_trial_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    tenant: ContextVar[str] = ContextVar("tenant")
    gate = GrammarGate(None, Limits(1), tenant.get)
    tried, over = threading.Event(), threading.Event()
    order: list[Any] = []

    def ask(params: SamplingParams) -> None:
        order.append(params.structured_outputs.regex)
        tried.set()
        assert over.wait(60)

    monkeypatch.setattr(gate, "_ask", ask)
    tenant.set("many")
    many = [asyncio.create_task(gate.check(grammar(f"many {at}"))) for at in range(3)]
    await asyncio.to_thread(tried.wait, 60)
    tenant.set("one")
    one = asyncio.create_task(gate.check(grammar("one")))
    await asyncio.sleep(0)  # it takes its place
    over.set()
    await asyncio.gather(one, *many)
    assert order == ["many 0", "one", "many 1", "many 2"]


async def test_a_process_that_dies_at_its_start_is_told(
    gate: GrammarGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.close()
    monkeypatch.setattr(grammar_gate, "serve", os._exit)  # which takes no such arguments
    with pytest.raises(RetryableRequestError, match="has not started"):
        await gate.check(grammar("never"))
    monkeypatch.undo()
    await gate.check(grammar("started again"))


async def test_who_leaves_takes_the_engines_request_along(gate: GrammarGate) -> None:
    stock = Engine()
    engine = SensefieldEngine(stock, [TriedGrammars(gate)])
    outputs = engine.generate("a", grammar("[a-c]+"), "1")
    assert await anext(outputs) == "a True 1 0"
    await outputs.aclose()
    assert stock.closed == 1


async def test_a_trial_that_dies_is_told_and_the_next_one_starts_anew(gate: GrammarGate) -> None:
    await gate.check(grammar("before"))
    assert gate._process is not None
    assert gate._process.pid is not None
    os.kill(gate._process.pid, signal.SIGKILL)
    with pytest.raises(RetryableRequestError, match="could not be tried"):
        await gate.check(grammar("after"))
    await gate.check(grammar("after"))
