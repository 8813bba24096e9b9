"""Errors of controls: the field, and the allowed values."""

from __future__ import annotations

_SHOWN = 100


class ControlError(ValueError):
    """An error in a program: ``param`` names the field, the message the allowed values."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(f"{param}: {message}")
        self.param = param
        self.message = message

    def under(self, prefix: str) -> ControlError:
        """Return the same error with its field placed below ``prefix``."""
        separator = "" if self.param.startswith("[") or not self.param else "."
        return ControlError(f"{prefix}{separator}{self.param}", self.message)


def require(condition: bool, param: str, message: str) -> None:
    """Raise a :class:`ControlError` unless ``condition`` holds."""
    if not condition:
        raise ControlError(param, message)


def shown(value: object) -> str:
    """Return a client's value, shortened for an error message."""
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def is_int(value: object) -> bool:
    """Say whether a value is an integer; True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def check_number(value: object, param: str, bound: float, unit: str) -> None:
    """Refuse a value that is not a finite number of at most ``bound``."""
    require(
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) <= bound,  # neither NaN nor infinity is
        param,
        f"{shown(value)} is out of range; allowed: finite, from -{bound:g} to {bound:g} {unit}",
    )
