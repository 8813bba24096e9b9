"""How a control's refusal names its field, and what is told of a value."""

from __future__ import annotations

import pytest

from logit_processors.checks import ControlError, check_number, is_int, shown


@pytest.mark.parametrize(
    ("param", "placed"), [("add", "bias[1].add"), ("", "bias[1]."), ("[2].add", "bias[1][2].add")]
)
def test_an_error_is_placed_below_a_field(param: str, placed: str) -> None:
    moved = ControlError(param, "why").under("bias[1]")
    assert moved.param == placed.rstrip(".")
    assert str(moved) == f"{moved.param}: why"


def test_a_value_is_told_short() -> None:
    assert shown("a" * 98) == repr("a" * 98)
    assert shown("a" * 99) == "'" + "a" * 98 + "…"


def test_true_is_no_integer() -> None:
    assert [is_int(value) for value in (0, 2**70, True, 1.0, "1")] == [
        True,
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize("value", [2.5, -2.5, 0, 2])
def test_a_number_within_its_bound_passes(value: float) -> None:
    check_number(value, "x", 2.5, "nats")


@pytest.mark.parametrize("value", [2.51, -3, float("nan"), float("-inf"), True, "1", None, 10**400])
def test_any_other_is_refused_by_name_and_unit(value: object) -> None:
    with pytest.raises(ControlError, match=r"finite, from -2\.5 to 2\.5 nats") as caught:
        check_number(value, "x", 2.5, "nats")
    assert caught.value.param == "x"
