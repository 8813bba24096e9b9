"""The kinds of control that this process knows, in the order in which they act."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterable
from functools import cache
from typing import Any

from logit_processors import controls as package
from logit_processors.control import Control, Phase


@cache
def controls() -> tuple[Control[Any], ...]:
    """Return the registered controls by phase and order."""
    return ordered(_own())


@cache
def by_name() -> dict[str, Control[Any]]:
    """Return the registered controls by name."""
    return {control.name: control for control in controls()}


@cache
def by_field() -> dict[str, tuple[Control[Any], ...]]:
    """Return the fields of ``logit_control`` in order, with the controls that share each."""
    fields: dict[str, list[Control[Any]]] = {}
    # Forms come in the order in which they act at the logits.
    for control in sorted(controls(), key=lambda each: each.phase is Phase.MODEL):
        fields.setdefault(field_of(control), []).append(control)
    return {field: tuple(found) for field, found in fields.items()}


def field_of(control: Control[Any]) -> str:
    """Return the key in ``logit_control`` under which the control's entries stand."""
    return control.field or control.name


def ordered(found: Iterable[Control[Any]]) -> tuple[Control[Any], ...]:
    """Return controls in the order in which they act."""
    return tuple(sorted(found, key=lambda control: (control.phase, control.order, control.name)))


def _own() -> list[Control[Any]]:
    found: list[Control[Any]] = []
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        members = vars(importlib.import_module(module.name)).values()
        found += [
            member()
            for member in members
            if inspect.isclass(member)
            and issubclass(member, Control)
            and member.__module__ == module.name
        ]
    return found
