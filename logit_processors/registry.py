"""The registered kinds of control: those of this package, and plugins.

A distribution adds kinds by entry points of the group ``sensefield.controls``.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import pkgutil
from collections.abc import Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pydantic import TypeAdapter

from logit_processors import controls as package
from logit_processors.control import Control, Entry, Phase
from logit_processors.row_spec import BROKEN

GROUP = "sensefield.controls"


class PluginError(Exception):
    """A plugin that cannot be used; the message names it and says why."""


@cache
def controls() -> tuple[Control[Any], ...]:
    """Return the registered controls by phase and order.

    Raises:
        PluginError: a plugin cannot be loaded, or is no control.

    """
    found = _own()
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        found.append(_loaded(point, found))
    return tuple(sorted(found, key=lambda control: (control.phase, control.order, control.name)))


@cache
def by_name() -> dict[str, Control[Any]]:
    """Return the registered controls by name."""
    return {control.name: control for control in controls()}


@cache
def by_field() -> dict[str, tuple[Control[Any], ...]]:
    """Return the fields of ``logit_control`` in order, with the controls that share each."""
    fields: dict[str, list[Control[Any]]] = {}
    # Fields are in the order in which their controls act at the logits.
    for control in sorted(controls(), key=lambda each: each.phase is Phase.MODEL):
        fields.setdefault(field_of(control), []).append(control)
    return {field: tuple(found) for field, found in fields.items()}


def field_of(control: Control[Any]) -> str:
    """Return the key of the control's entries in ``logit_control``."""
    return control.field or control.name


def is_foreign(control: Control[Any]) -> bool:
    """Say whether a control is a plugin's."""
    return not type(control).__module__.startswith(f"{package.__name__}.")


def failed_code(name: str) -> float:
    """Return the value of a row's ``alive`` if a control failed on it."""
    return BROKEN - 1 - list(by_name()).index(name)


def failed_name(code: float) -> str:
    """Return the control that such a value names."""
    return list(by_name())[round(BROKEN - 1 - code)]


def fingerprints() -> dict[str, str]:
    """Return a hash of each control's name, place and schema.

    Processes with different hashes cannot read each other's programs.
    """
    return {
        control.name: hashlib.sha256(
            json.dumps(
                [field_of(control), control.phase, control.order, control.single, _schema(control)],
                sort_keys=True,
            ).encode()
        ).hexdigest()
        for control in controls()
    }


def _schema(control: Control[Any]) -> dict[str, Any]:
    form: Any = control.entry
    return TypeAdapter(form).json_schema()


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


def _loaded(point: EntryPoint, known: Iterable[Control[Any]]) -> Control[Any]:
    where = f"the control {point.name!r} ({point.value})"
    if point.dist is not None:
        where += f" of {point.dist.name} {point.dist.version}"
    try:
        control = point.load()()
    except Exception as error:
        raise PluginError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
    if reason := _fault(control, point.name, known):
        raise PluginError(f"{where} cannot be used: {reason}")
    checked: Control[Any] = control
    return checked


def _fault(control: Any, name: str, known: Iterable[Control[Any]]) -> str | None:
    """Return the reason why an object cannot be registered beside the known controls, or None."""
    if not isinstance(control, Control):
        return f"it is a {type(control).__name__}, no subclass of logit_processors.control.Control"
    missing = [part for part in ("name", "entry", "phase") if not hasattr(control, part)]
    if missing:
        return f"it has no {missing[0]}"
    taken = {each.name for each in known} | {field_of(each) for each in known}
    phases = [phase for phase in Phase if phase is not Phase.MODEL]
    form: Any = control.entry
    faults = {
        f"its name is {control.name!r}; allowed: {name!r}, an identifier": (
            control.name == name and name.isidentifier()
        ),
        "its entry is no subclass of logit_processors.control.Entry": (
            inspect.isclass(form) and issubclass(form, Entry)
        ),
        f"its phase is {control.phase!r}; allowed: {', '.join(each.name for each in phases)}": (
            control.phase in phases
        ),
        f"the field {field_of(control)!r} exists": not {name, field_of(control)} & taken,
    }
    found = next((fault for fault, is_well in faults.items() if not is_well), None)
    if found is None:
        try:
            _schema(control)
        except Exception as error:
            found = f"its entry has no JSON schema: {error}"
    return found
