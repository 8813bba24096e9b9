"""Each control passes the shared checks, and a deliberately wrong one fails them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import Field

from logit_processors.control import Control, Phase, WindowedEntry
from logit_processors.registry import controls
from logit_processors.table import EngineFacts, Rows, Table
from logit_processors.testing import CHECKS, Harness

CASES = [
    pytest.param(control, example, id=f"{control.name}-{example}")
    for control in controls()
    if control.phase is not Phase.MODEL
    for example in range(len(control.examples))
]
CHECK_NAMES = {check.__name__: check for check in CHECKS}


def test_each_control_has_an_example() -> None:
    assert all(control.examples for control in controls())


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(("control", "example"), CASES)
def test_it_passes(control: Control[Any], example: int, check: Callable[[Harness], None]) -> None:
    check(Harness(control, example))


class WrongEntry(WindowedEntry):
    """Raise a token, in a wrong way."""

    how: str
    add: float = Field(5.0, exclude=False)


class Wrong(Control[WrongEntry]):
    """A control with one fault."""

    name, entry, phase = "wrong", WrongEntry, Phase.ADD

    def __init__(self, how: str) -> None:
        self.examples = ({"how": how},)  # type: ignore[misc]
        self.neutral = ({"how": how, "add": 0.0},)  # type: ignore[misc]

    def table(self, engine: EngineFacts) -> Table[WrongEntry]:
        return WrongTable(engine)


class WrongTable(Table[WrongEntry]):
    def __init__(self, engine: EngineFacts) -> None:
        self.used = np.zeros(engine.slots, bool)
        self._entries: dict[int, WrongEntry] = {}

    def write(self, slot: int, entries: Sequence[WrongEntry], _patterns: Mapping[Any, Any]) -> bool:
        self.used[slot] = bool(entries)
        if entries:
            self._entries[slot] = entries[0]
        elif self._entries.get(slot) and self._entries[slot].how == "stays":
            self.used[slot] = True
        return True

    def apply(self, logits: torch.Tensor, rows: Rows) -> None:
        for row, slot in enumerate(rows.slots.tolist()):
            entry = self._entries.get(slot)
            if entry is None or not self.used[slot]:
                continue
            if not entry.covers(int(rows.positions[row])) and entry.how != "no window":
                continue
            match entry.how:
                case "neighbours":
                    logits[:, 2] += entry.add / len(logits)
                case "never off":
                    logits[row, 2] += entry.add + 1
                case "nothing":
                    pass
                case "not a number":
                    logits[row, 2] = torch.nan if entry.add else logits[row, 2]
                case "needs the host":
                    known = len(rows.host_slots) == len(rows.slots)
                    logits[row, 2] += entry.add * (1 if known else 2)
                case _:
                    logits[row, 2] += entry.add


@pytest.mark.parametrize(
    ("how", "caught"),
    [
        ("neighbours", "a_row_in_a_batch_is_the_row_alone"),
        ("never off", "a_neutral_entry_is_off"),
        ("no window", "a_window_is_respected"),
        ("stays", "a_slot_used_again_is_clean"),
        ("needs the host", "both_runners_give_the_same"),
        ("not a number", "no_row_is_not_a_number"),
        ("nothing", "an_example_does_something"),
    ],
)
def test_a_wrong_control_does_not(how: str, caught: str) -> None:
    failed = set()
    for name, check in CHECK_NAMES.items():
        try:
            check(Harness(Wrong(how)))
        except AssertionError:
            failed.add(name)
    assert caught in failed


def test_a_right_one_does() -> None:
    for check in CHECKS:
        check(Harness(Wrong("right")))
