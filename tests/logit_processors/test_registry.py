"""The registry: order, fields, and what becomes of plugins that are none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Any

import pytest

from logit_processors import registry
from logit_processors.control import Control, Entry, Phase
from logit_processors.row_spec import BROKEN
from logit_processors.table import EngineFacts, Table


class Lucky(Entry):
    """An entry of a plugin."""

    number: int = 7


class LuckyNumber(Control[Lucky]):
    """A plugin."""

    name, entry, phase = "lucky", Lucky, Phase.SHAPE

    def table(self, engine: EngineFacts) -> Table[Lucky]:
        raise NotImplementedError


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a way to install plugins: names, and what their modules hold."""

    def install(**members: Any) -> None:
        module = ModuleType("plugged")
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, "plugged", module)
        points = [EntryPoint(name, f"plugged:{name}", registry.GROUP) for name in members]
        monkeypatch.setattr(registry, "entry_points", lambda group: points)
        forget()

    yield install
    monkeypatch.undo()
    forget()


def forget() -> None:
    for each in (registry.controls, registry.by_name, registry.by_field):
        each.cache_clear()


def test_kinds_come_in_the_order_in_which_they_act() -> None:
    names = list(registry.by_name())
    assert names[0] == "steer_residual", "inside the model"
    adding = [name for name in names if registry.by_name()[name].phase is Phase.ADD]
    assert adding[:3] == ["token_bias", "text_bias", "steer_logits"]
    assert names.index("steer_logits") < names.index("token_suppress") < names.index("force")
    assert list(registry.by_field())[:3] == ["bias", "steer", "suppress"]


def test_a_plugin_joins(plugins: Any) -> None:
    plugins(lucky=LuckyNumber)
    names = list(registry.by_name())
    assert names.index("text_suppress") < names.index("lucky") < names.index("force")
    assert "lucky" in registry.by_field()
    assert registry.is_foreign(registry.by_name()["lucky"])
    assert not registry.is_foreign(registry.by_name()["force"])
    code = registry.failed_code("lucky")
    assert code < BROKEN
    assert registry.failed_name(code) == "lucky"


def test_a_changed_schema_has_another_fingerprint(
    plugins: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins(lucky=LuckyNumber)
    before = registry.fingerprints()

    class Luckier(Entry):
        number: float = 7.5

    monkeypatch.setattr(LuckyNumber, "entry", Luckier)
    after = registry.fingerprints()
    assert {name for name in before if before[name] != after[name]} == {"lucky"}


def broken() -> None:
    raise OSError("no such library")


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (broken, "cannot be loaded: OSError: no such library"),
        (lambda: 5, "it is a int, no subclass"),
        (type("NoEntry", (LuckyNumber,), {"name": "unlucky"}), "its name is 'unlucky'"),
        (type("NotAForm", (LuckyNumber,), {"entry": dict}), "no subclass of .*Entry"),
        (
            type("Inside", (LuckyNumber,), {"phase": Phase.MODEL}),
            "allowed: ADD, MASK, SHAPE",
        ),
        (type("Taken", (LuckyNumber,), {"field": "bias"}), "the field 'bias' exists"),
    ],
)
def test_a_bad_plugin_is_named(plugins: Any, member: Any, words: str) -> None:
    plugins(lucky=member)
    with pytest.raises(registry.PluginError, match=f"'lucky' .plugged:lucky.*{words}"):
        registry.controls()
