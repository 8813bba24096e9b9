"""Paths of pydantic's errors as JSON paths."""

from __future__ import annotations

import pytest

from service.json_path import json_path


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
