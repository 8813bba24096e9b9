"""If-Match and If-None-Match: how they are read, and what they let through."""

from __future__ import annotations

import numpy as np
import pytest
from starlette.requests import Request

from service.api.preconditions import Preconditions, preconditions_of
from service.errors import BadRequestError, PreconditionFailedError
from service.vectors.content import VectorContent
from service.vectors.store import BrokenName, Entry, StoredName

SUMMARY = VectorContent({"direction": np.ones(4, np.float32)}).summary
ONE, TWO = "1" * 64, "2" * 64
HERE = StoredName("a", ONE, 7, {}, None, 1, SUMMARY)
BROKEN = BrokenName("a")


def read(*headers: tuple[str, str]) -> Preconditions:
    encoded = [(name.encode(), value.encode()) for name, value in headers]
    return preconditions_of(Request({"type": "http", "headers": encoded}))


def holds(preconditions: Preconditions, entry: Entry | None) -> bool:
    try:
        preconditions.check(entry)
    except PreconditionFailedError:
        return False
    return True


@pytest.mark.parametrize(
    ("header", "value", "expected"),
    [
        # What holds for: the vector, one whose name is damaged, none.
        ("if-match", "*", (True, True, False)),
        ("if-match", f'"{ONE}"', (True, False, False)),
        ("if-match", f'"{TWO}"', (False, False, False)),
        ("if-match", f'"{TWO}" , "{ONE}"', (True, False, False)),
        ("if-match", f'W/"{ONE}"', (False, False, False)),
        ("if-match", '""', (False, False, False)),
        ("if-none-match", "*", (False, False, True)),
        ("if-none-match", f'"{ONE}"', (False, True, True)),
        ("if-none-match", f'W/"{ONE}"', (False, True, True)),
        ("if-none-match", f'"{TWO}"', (True, True, True)),
    ],
)
def test_what_holds(header: str, value: str, expected: tuple[bool, bool, bool]) -> None:
    preconditions = read((header, value))
    assert tuple(holds(preconditions, entry) for entry in (HERE, BROKEN, None)) == expected


def test_nothing_said_lets_everything_through() -> None:
    assert read() == Preconditions()
    assert all(holds(read(), entry) for entry in (HERE, BROKEN, None))


def test_several_headers_are_one_list_and_both_kinds_must_hold() -> None:
    assert holds(read(("if-match", f'"{TWO}"'), ("if-match", f'"{ONE}"')), HERE)
    assert not holds(read(("if-match", f'"{ONE}"'), ("if-none-match", f'"{ONE}"')), HERE)


@pytest.mark.parametrize("value", ["", ONE, f'"{ONE}', '"a" "b"', '"a",', '*, "a"', "'a'"])
@pytest.mark.parametrize("header", ["if-match", "if-none-match"])
def test_what_is_no_entity_tag_is_a_bad_request(header: str, value: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        read((header, value))
    assert caught.value.param == header
    assert "entity tags" in caught.value.message
