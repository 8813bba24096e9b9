"""Large answers in pieces, between which the loop runs."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator

import pytest

from service import pieces
from service.pieces import PIECE, Later, in_slices, json_list, json_pieces


def joined(value: object) -> object:
    return json.loads(b"".join(json_pieces(value)))


def test_what_is_written_later_stands_in_its_place() -> None:
    inner = {"c": Later(iter([b"[1,", b"2]"])), 3: "d"}
    value = {"a": Later([b'"x"']), "b": Later(json_list([inner, "e"]))}
    assert joined(value) == {"a": "x", "b": [{"c": [1, 2], "3": "d"}, "e"]}
    assert joined({"a": []}) == {"a": []}
    assert joined(Later(json_list([]))) == []


def test_nothing_is_written_before_its_turn() -> None:
    begun: list[str] = []

    def late(name: str) -> Iterator[bytes]:
        begun.append(name)
        yield b"0"

    written = json_pieces({"a": Later(late("never")), "b": 1})
    assert next(written) == b'{"a":'
    assert begun == []


def test_what_has_no_form_in_json_is_an_error() -> None:
    with pytest.raises(TypeError, match="object"):
        list(json_pieces({"a": object()}))


async def test_small_pieces_are_put_together_and_large_ones_are_not() -> None:
    large = b"x" * PIECE
    made = await in_slices(iter([b"a", b"", b"b", large, b"c"]))
    assert b"".join(made) == b"ab" + large + b"c"
    assert list(map(len, made)) == [PIECE + 2, 1]
    assert await in_slices(iter([])) == []


def busy(seconds: float, name: str, order: list[str]) -> Iterator[bytes]:
    """Yield pieces, each of which takes so long."""
    for _ in range(5):
        order.append(name)
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            pass
        yield name.encode()


async def test_others_run_between_slices_of_a_long_answer() -> None:
    order: list[str] = []
    long = asyncio.create_task(in_slices(busy(2 * pieces._SLICE_SECONDS, "long", order)))
    await asyncio.sleep(0)
    while not long.done():
        order.append("other")
        await asyncio.sleep(0)
    assert await long == [b"long"] * 5
    assert all(order[at : at + 2] != ["long", "long"] for at in range(len(order)))


async def test_one_slice_is_made_in_a_turn_however_many_answers_are_long() -> None:
    order: list[str] = []
    seconds = 2 * pieces._SLICE_SECONDS
    tasks = [asyncio.create_task(in_slices(busy(seconds, name, order))) for name in "abc"]
    await asyncio.sleep(0)  # each has made its first slice
    del order[:]
    turns = 0
    while not all(task.done() for task in tasks):
        before = len(order)
        await asyncio.sleep(0)
        turns += 1
        assert len(order) - before <= 1
    assert turns >= len(order) == 12


async def test_a_short_answer_does_not_wait_for_a_long_one() -> None:
    order: list[str] = []
    long = asyncio.create_task(in_slices(busy(2 * pieces._SLICE_SECONDS, "long", order)))
    await asyncio.sleep(0)
    await in_slices(iter([b"short"]))
    assert not long.done()
    await long
