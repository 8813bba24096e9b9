"""Paths of pydantic's errors as JSON paths."""

from __future__ import annotations

import pytest

from service.json_path import json_path, parts_in


@pytest.mark.parametrize(
    ("location", "path"),
    [
        (("body", "logit_control", "bias", 3, "add"), "logit_control.bias[3].add"),
        (("body", 0, 1), "[0][1]"),
        (("body",), "body"),
        ((), "body"),
        (("query", "k"), "query.k"),
        (("inner", "body"), "inner.body"),
    ],
)
def test_paths_are_written_as_json_paths(location: tuple[str | int, ...], path: str) -> None:
    assert json_path(location) == path


BODY = {"prompt": ["a", [1]], "format": {"type": "xml"}, "key[a]": 1}


@pytest.mark.parametrize(
    ("location", "parts"),
    [
        (("prompt", "list[int]", 0), ["prompt", 0]),
        (("prompt", "str"), ["prompt"]),
        (("prompt", "list[list[int]]", 1, 0), ["prompt", 1, 0]),
        (("prompt", "list[int]", 7), ["prompt"]),
        (("format", "function-wrap[f()]", "type"), ["format", "type"]),
        (("format", "Schema", "missing"), ["format", "missing"]),
        (("missing",), ["missing"]),
        (("key[a]",), ["key[a]"]),
        ((), []),
    ],
)
def test_names_of_kinds_are_no_part_of_a_path(
    location: tuple[str | int, ...], parts: list[str | int]
) -> None:
    assert list(parts_in(BODY, location)) == parts
