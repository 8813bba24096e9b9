"""The number of a body's values is known before it is parsed, for any text in it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.access import large_bodies
from service.access.large_bodies import check_size
from service.errors import BadRequestError

TEXTS = st.text(st.sampled_from('",\\né[{'))
VALUES = st.recursive(
    st.integers() | TEXTS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner)
)


def commas(value: Any) -> int:
    """Return the commas between values, as the json module writes them."""
    outside = re.sub(r'"(?:[^"\\]|\\.)*"', "", json.dumps(value))
    return outside.count(",")


@given(value=VALUES, size=st.integers(1, 5))
def test_values_are_counted_and_texts_are_not(value: Any, size: int) -> None:
    data = json.dumps(value).encode()
    count = commas(value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_bodies, "LARGE", 0)
        patch.setattr(large_bodies, "_AT_ONCE", size + 1)
        patch.setattr(large_bodies, "MAX_COMMAS", count)
        assert set(check_size(data)) <= {b""}
        patch.setattr(large_bodies, "MAX_COMMAS", count - 1)
        if count:
            with pytest.raises(BadRequestError, match=f"over {count - 1} values"):
                list(check_size(data))


@pytest.mark.parametrize("data", [b'",', b'",\\', b'",\\"', b'"\\,', b'{"a,'])
def test_what_is_no_json_is_passed_on(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_bodies, "LARGE", 0)
    monkeypatch.setattr(large_bodies, "MAX_COMMAS", 0)
    assert set(check_size(data)) == {b""}


def test_a_long_text_is_looked_at_in_steps() -> None:
    text = json.dumps('",' * (large_bodies.MAX_COMMAS + 1)).encode()
    steps = list(check_size(text))
    assert len(steps) > len(text) / (64 << 10)
