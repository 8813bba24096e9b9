"""Salts: equal for equal steering, different for any other, out of a caller's reach."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vllm import SamplingParams

from logit_processors.controls.steer import SteerEntry
from logit_processors.program import Program
from logit_processors.wire import WIRE_KEY
from service.engine.cache_salt import SteeringSalt, fingerprint, secret_of
from service.engine.engine import SensefieldEngine
from tests.entries import span, steer_residual

LAYERS = {"a": [1, 2, 3], "b": [2]}
A, B = steer_residual("a", 1.0), steer_residual("b", 1.0)


def print_of(*steer: SteerEntry, prompt_len: int = 8) -> str | None:
    return fingerprint(steer, LAYERS.__getitem__, prompt_len)


@pytest.mark.parametrize(
    "steer",
    [
        [],
        [steer_residual("a", 0.0)],
        [A, steer_residual("a", -1.0)],
        [A, steer_residual("a", -1.0, (1, 2, 3))],
        [steer_residual("a", 1e-60)],
    ],
)
def test_steering_that_changes_nothing_is_none(steer: list[SteerEntry]) -> None:
    assert print_of(*steer) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([A, B], [B, A]),
        ([A], [steer_residual("a", 0.5), steer_residual("a", 0.5)]),
        ([A], [steer_residual("a", 1.0, (3, 1, 2))]),
        ([A], [steer_residual("a", 1.0, (3,)), steer_residual("a", 1.0, (1, 2))]),
        ([A], [A, steer_residual("b", 0.0)]),
        ([steer_residual("b", 1)], [B]),
    ],
)
def test_equal_steering_is_equal(one: list[SteerEntry], other: list[SteerEntry]) -> None:
    assert print_of(*one) == print_of(*other)


DIFFERENT = [
    [],
    [A],
    [B],
    [A, B],
    [steer_residual("a", -1.0)],
    [steer_residual("a", 1.0000001)],
    [steer_residual("a", 1.0, (1,))],
    [steer_residual("a", 1.0, (2,))],
    [steer_residual("a", 1.0, when=span(0))],
    [steer_residual("a", 1.0, when=span(None, 0))],
    [steer_residual("a", 1.0, when=span(-1, 0))],
]


def test_different_steering_is_different() -> None:
    prints = [print_of(*steer) for steer in DIFFERENT]
    assert len(set(prints)) == len(DIFFERENT)


def test_a_window_counts_from_the_end_of_its_prompt() -> None:
    """So the same tokens under a window share only with prompts of the same length."""
    windowed = steer_residual("a", 1.0, when=span(0))
    assert print_of(windowed, prompt_len=8) != print_of(windowed, prompt_len=9)
    assert print_of(A, prompt_len=8) == print_of(A, prompt_len=9)


@given(st.permutations([A, B, steer_residual("a", 0.25, (2,), span(0, 4))]))
def test_no_order_matters(steer: list[SteerEntry]) -> None:
    assert print_of(*steer) == print_of(A, B, steer_residual("a", 0.25, (2,), span(0, 4)))


class Stock:
    """Remembers the prompt it was asked to continue."""

    def __init__(self) -> None:
        self.prompt: Any = None
        self.key = b"the engine's own secret"

    async def collective_rpc(self, method: str, timeout: None, args: tuple[()]) -> list[bytes]:
        assert (method, timeout, args) == ("sensefield_cache_key", None, ())
        return [self.key, b"another worker's"]

    async def generate(
        self, prompt: Any, _params: Any, request_id: str, *, priority: int = 0
    ) -> AsyncGenerator[Any, None]:
        self.prompt = prompt
        yield (request_id, priority)


async def salt(
    steer: list[SteerEntry],
    wire: dict[str, Any] | None = None,
    stock: Stock | None = None,
    **prompt: Any,
) -> Any:
    """Return the salt that reaches the engine."""
    stock = stock or Stock()
    salts = SteeringSalt(LAYERS.__getitem__, await secret_of(stock))
    engine = SensefieldEngine(stock, [salts])
    program = Program.of({"steer_residual": steer})
    extra: dict[str, Any] = {WIRE_KEY: {"program": program.to_wire()}}
    given_ = {"type": "token", "prompt_token_ids": [1, 2, 3], **prompt}
    before = dict(given_)
    params = SamplingParams(extra_args=extra if steer else wire)
    found = [answer async for answer in engine.generate(given_, params, "x", priority=3)]
    assert found == [("x", 3)]
    assert given_ == before, "the caller's prompt stays as it is"
    assert {key: stock.prompt[key] for key in before if key != "cache_salt"} == {
        key: value for key, value in before.items() if key != "cache_salt"
    }
    return stock.prompt.get("cache_salt")


async def test_plain_requests_keep_what_they_have() -> None:
    assert await salt([]) is None
    assert await salt([], {"theirs": 1}, cache_salt="mine") == "mine"
    assert await salt([steer_residual("a", 0.0)], cache_salt="mine") == "mine"
    assert await salt([steer_residual("a", 0.0)]) is None


async def test_salts_chain_with_the_callers_own() -> None:
    salts = [
        await salt([A]),
        await salt([A], cache_salt="mine"),
        await salt([A], cache_salt="yours"),
        await salt([B], cache_salt="mine"),
    ]
    assert len(set(salts)) == 4
    assert await salt([A], cache_salt="mine") == salts[1]
    assert all(len(each) == 64 for each in salts)


async def test_no_caller_can_name_the_salt_of_anothers_steering() -> None:
    steered = await salt([A])
    printed = print_of(A, prompt_len=3)
    assert printed is not None
    assert steered != printed
    assert printed not in steered
    # Even who has seen a salt gets another one by steering under it.
    assert await salt([A], cache_salt=steered) != steered


async def test_engines_have_secrets_of_their_own() -> None:
    other = Stock()
    other.key = b"another engine's secret"
    assert await salt([A], stock=other) != await salt([A])


async def test_embeddings_have_a_length_too() -> None:
    windowed = [steer_residual("a", 1.0, when=span(0))]
    salts = {
        await salt(windowed, prompt_token_ids=None, prompt_embeds=[[0.0]] * size) for size in (3, 4)
    }
    assert len(salts) == 2
    assert await salt(windowed) in salts
