"""Each token of a vocabulary has a name of its own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.distributions.token_names import different_names


def test_a_name_is_the_text_and_else_the_bytes() -> None:
    tokens = [b" sea", "≠".encode(), "≠".encode()[:2], b" \xf0\x9f", b"\xff", "�".encode()]
    assert different_names(tokens) == [
        " sea", "≠", r"bytes:\xe2\x89", r"bytes: \xf0\x9f", r"bytes:\xff", "�",
    ]  # fmt: skip


def test_of_two_of_one_text_the_lone_byte_is_spelled() -> None:
    # Vocabularies with a token for each byte have those first.
    assert different_names([b"\n", b"A", b"A", b"A"]) == ["\n", "token_id:1", "bytes:A", "A"]


def test_what_writes_nothing_is_called_by_its_number() -> None:
    assert different_names([b"", b"a", b""]) == ["token_id:0", "a", "token_id:2"]


@given(st.lists(st.binary(max_size=3), max_size=40))
def test_no_two_names_are_equal(tokens: list[bytes]) -> None:
    assert len(set(different_names(tokens))) == len(tokens)
