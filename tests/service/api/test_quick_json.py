"""JSON responses say what they said before, and take less of the loop's time."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.responses import JSONResponse

from service.api.quick_json import render


@pytest.mark.parametrize(
    "content",
    [{"a": [1, 2.5, None, True], "é": "漢"}, [], "x", 1 << 70, {1: "a"}, {"b": -(1 << 64)}],
    ids=repr,
)
def test_a_body_is_the_same_json(content: Any) -> None:
    assert json.loads(render(JSONResponse(None), content)) == json.loads(json.dumps(content))


def test_what_is_no_number_is_null_and_no_server_error() -> None:
    assert render(JSONResponse(None), [float("nan")]) == b"[null]"
