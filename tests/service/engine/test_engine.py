"""The engine client that all routes generate through."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from vllm.engine.protocol import EngineClient
from vllm.sampling_params import SamplingParams
from vllm.v1.engine.async_llm import AsyncLLM

from service.engine.engine import Generate, Outputs, SensefieldEngine, served_through

PUBLIC = [name for name in dir(EngineClient) if not name.startswith("_")]
PARAMS = SamplingParams()


class Stock:
    """An engine client each of whose attributes tells its name, but for ``generate``."""

    def __getattr__(self, name: str) -> str:
        return f"the client's {name}"

    async def generate(
        self, prompt: str, params: Any, request_id: str, *, priority: int = 0
    ) -> AsyncGenerator[Any, None]:
        yield prompt, params, request_id, priority


class Mark:
    """A step that adds a letter to the prompt."""

    def __init__(self, letter: str) -> None:
        self._letter = letter

    def __call__(self, generate: Generate, prompt: str, *args: Any, **kwargs: Any) -> Outputs:
        return generate(prompt + self._letter, *args, **kwargs)


class OtherMark(Mark):
    """A step of another kind."""


async def prompts(engine: SensefieldEngine) -> list[str]:
    return [prompt async for prompt, *_ in engine.generate("", PARAMS, "one")]


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "generate"] + ["engine_core"])
def test_all_but_generating_is_the_clients(name: str) -> None:
    """A default of vLLM's interface must not stand before what its client does."""
    assert getattr(SensefieldEngine(Stock()), name) == f"the client's {name}"


def test_it_passes_for_the_client_that_it_stands_for() -> None:
    """One of vLLM's development routes asks for the class before it ends all requests."""
    engine = SensefieldEngine(AsyncLLM.__new__(AsyncLLM))
    assert isinstance(engine, AsyncLLM)
    assert isinstance(engine, EngineClient)
    assert isinstance(engine, SensefieldEngine)


async def test_steps_are_taken_in_their_order() -> None:
    engine = SensefieldEngine(Stock(), [Mark("a"), Mark("b")])
    assert await prompts(engine) == ["ab"]
    engine.steps = (Mark("c"),)
    assert await prompts(engine) == ["c"]


async def test_one_request_takes_a_step_more_or_fewer() -> None:
    engine = SensefieldEngine(Stock(), [Mark("a"), OtherMark("b"), Mark("c")])
    assert await prompts(engine.behind(Mark("d"))) == ["dabc"]
    assert await prompts(engine.without(OtherMark)) == ["ac"]
    assert await prompts(engine) == ["abc"]


async def test_arguments_come_as_they_were_given() -> None:
    engine = SensefieldEngine(Stock(), [Mark("a")])
    outputs = engine.generate(prompt="", sampling_params=PARAMS, request_id="one", priority=3)
    assert [each async for each in outputs] == [("a", PARAMS, "one", 3)]


def test_a_step_refuses_before_the_outputs_are_asked_for() -> None:
    def refuse(*_: Any) -> Outputs:
        raise ValueError("no room")

    with pytest.raises(ValueError, match="no room"):
        SensefieldEngine(Stock(), [refuse]).generate("", PARAMS, "one")


async def test_vllm_builds_its_application_on_it() -> None:
    built: list[Any] = []

    async def build_and_serve(client: Any, address: str, *, peer_loads: Any = None) -> str:
        built.extend((client, address, peer_loads))
        return "served"

    stock = Stock()
    assert await served_through(build_and_serve)(stock, "here", peer_loads=1) == "served"
    assert isinstance(built[0], SensefieldEngine)
    assert built[0].stock is stock
    assert built[1:] == ["here", 1]
