"""What a vector may be called."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import BadRequestError
from service.vectors.names import check_name
from service.vectors.store import VectorStore
from tests.service.vectors.storing import any_entry, files, name, put


@pytest.mark.parametrize("good", ["a", "0", "a" * 64, "calm.v2", "a-b_c", "9..9", "a.json"])
def test_names_that_are_allowed(good: str) -> None:
    assert check_name(good) == good


BAD_NAMES = ["", "A", ".a", "-a", "_a", "a" * 65, "a/b", "..", "../a", "a\\b", "a b", "a\n", "é"]


@pytest.mark.parametrize("bad", [*BAD_NAMES, "a\0", "x" * 5000, "\ud800"])
def test_names_that_are_not(bad: str, store: VectorStore, tmp_path: Path) -> None:
    with pytest.raises(BadRequestError) as caught:
        check_name(bad)
    assert caught.value.param == "name"
    assert "1 to 64 of a-z, 0-9" in caught.value.message
    assert len(caught.value.message) < 400
    caught.value.message.encode()
    for act in (
        lambda: put(store, replace(name("a"), name=bad), b"one"),
        lambda: store.delete(bad, any_entry),
        lambda: store.find([bad]),
    ):
        with pytest.raises(BadRequestError):
            act()
    assert files(tmp_path) == set()


@given(st.text(max_size=70))
def test_no_name_leaves_its_folder(called: str) -> None:
    try:
        check_name(called)
    except BadRequestError:
        return
    assert Path(f"{called}.json").name == f"{called}.json"
    assert Path(f"{called}.json").stem == called
