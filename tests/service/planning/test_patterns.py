"""Room for text patterns, and their compilation, on the way to the engine."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from logit_processors.program import Program
from service.errors import BadRequestError, SaturatedError
from service.metrics import PATTERN_BYTES
from service.planning import patterns
from service.planning.patterns import Patterns
from tests.entries import bias_text, program_of, suppress_text
from tests.unit_support import FOUR, compiled_of


def suppressing(*texts: str) -> Program:
    return program_of(text_suppress=tuple(map(suppress_text, texts)))


def room_for(states: int, shares: int | None = 1) -> Patterns:
    found = Patterns(FOUR, shares)
    found.limit = states
    return found


def promised() -> float:
    value: float = PATTERN_BYTES._value.get()
    return value


def test_room_is_promised_until_a_request_has_ended() -> None:
    room = room_for(10)
    with ExitStack() as first:
        first.enter_context(room.hold(suppressing("abcdef")))
        assert promised() == 6
        with pytest.raises(SaturatedError, match=r"need 5 bytes .* and 4 are left now") as refused:
            room.hold(suppressing("vwxyz")).__enter__()
        assert (refused.value.param, refused.value.code) == ("logit_control", "patterns_full")
        assert refused.value.headers == {"Retry-After": "5"}
        assert promised() == 6
    with room.hold(suppressing("vwxyz")):
        assert promised() == 5
    assert promised() == 0


def test_requests_share_the_room_of_the_same_pattern() -> None:
    room = room_for(6)
    with room.hold(suppressing("abc")):
        with room.hold(suppressing("abc", "abc")):
            assert promised() == 3
        assert promised() == 3
        # What biases and what suppresses a text are patterns of their own.
        with room.hold(program_of(text_bias=(bias_text("abc", 1.0),))):
            assert promised() == 6
    assert promised() == 0


def test_what_can_never_fit_is_refused_for_good() -> None:
    with pytest.raises(BadRequestError, match="of 7 bytes are too many; allowed: 6 bytes"):
        room_for(6).hold(suppressing("abc", "defg")).__enter__()


def test_api_processes_share_the_pool_between_them() -> None:
    assert Patterns(FOUR, 4).limit == Patterns(FOUR, 1).limit // 4


def test_a_runner_without_a_pool_has_room_for_all() -> None:
    room = room_for(6, shares=None)
    with room.hold(suppressing("abcdef")), room.hold(suppressing("ghijkl")):
        assert promised() == 12
    with pytest.raises(BadRequestError, match="allowed: 6 bytes"):
        room.hold(suppressing("abcdefg")).__enter__()


def test_patterns_are_compiled_once() -> None:
    room = room_for(6)
    program = program_of(text_bias=(bias_text("ab", 1.0),), text_suppress=(suppress_text("b"),))

    async def compiled() -> list[object]:
        return [*await room.compile(program), *await room.compile(program)]

    first, second, *again = asyncio.run(compiled())
    assert [first, second] == [*compiled_of(program).values()]
    assert again[0] is first
    assert again[1] is second


def test_what_was_compiled_long_ago_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "_KEPT_BYTES", 8)
    room = room_for(6)

    async def compile_all() -> None:
        for text in ("a", "b", "ab", "ba"):
            await room.compile(suppressing(text))

    asyncio.run(compile_all())
    assert sum(each.nbytes for each in room._compiled.values()) == room._compiled_bytes <= 8
