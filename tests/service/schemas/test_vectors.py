"""What a vector is to be made from: exactly one kind of source."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from service.schemas.vectors import KINDS, MakeVector, Source

PART = {"vector": "a", "weight": -0.5}


def made(source: dict[str, Any], **more: Any) -> MakeVector:
    return MakeVector.model_validate({"name": "x", "from": source, **more})


def test_the_kinds() -> None:
    assert made({"text": " a"}).from_.text == " a"
    body = made({"combine": [PART, {"vector": "b"}], "orthogonal_to": "c"}, replace=True)
    assert body.replace
    assert [(part.vector, part.weight) for part in body.from_.combine or []] == [
        ("a", -0.5),
        ("b", 1.0),
    ]
    assert set(KINDS) < set(Source.model_fields)


@pytest.mark.parametrize(
    ("source", "location"),
    [
        ({}, ()),
        ({"text": "a", "combine": [PART]}, ()),
        ({"text": "a", "orthogonal_to": "b"}, ()),
        ({"orthogonal_to": "b"}, ()),
        ({"text": ""}, ("text",)),
        ({"text": "a" * 1025}, ("text",)),
        ({"text": 3}, ("text",)),
        ({"combine": []}, ("combine",)),
        ({"combine": [PART] * 65}, ("combine",)),
        ({"combine": [{"weight": 1.0}]}, ("combine", 0, "vector")),
        ({"combine": [PART, {**PART, "weight": 1001.0}]}, ("combine", 1, "weight")),
        ({"combine": [{**PART, "weight": float("nan")}]}, ("combine", 0, "weight")),
        ({"combine": [{**PART, "weight": "1"}]}, ("combine", 0, "weight")),
        ({"combine": [{**PART, "more": 1}]}, ("combine", 0, "more")),
        ({"sound": "a"}, ("sound",)),
    ],
)
def test_what_is_no_source(source: dict[str, Any], location: tuple[str | int, ...]) -> None:
    with pytest.raises(ValidationError) as caught:
        made(source)
    assert caught.value.errors()[0]["loc"] == ("from", *location)
