"""Preflights, and the headers that let a page of another origin read an answer."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import pytest
from fastapi import FastAPI

from service.access.cors import EXPOSED, cors_headers, is_preflight

ORIGIN = "http://app.example"


def scope(*headers: tuple[str, str], method: str = "GET", **flags: Any) -> dict[str, Any]:
    """Return a request to a server with such flags."""
    app = FastAPI()
    app.state.args = Namespace(allowed_origins=[], allow_credentials=False)
    vars(app.state.args).update(flags)
    encoded = [(name.encode(), value.encode()) for name, value in headers]
    return {"type": "http", "method": method, "headers": encoded, "app": app}


@pytest.mark.parametrize(
    ("method", "names", "expected"),
    [
        ("OPTIONS", ["origin", "access-control-request-method"], True),
        ("GET", ["origin", "access-control-request-method"], False),
        ("OPTIONS", ["origin"], False),
        ("OPTIONS", ["access-control-request-method"], False),
        ("OPTIONS", [], False),
    ],
)
def test_a_preflight_is_what_corsmiddleware_takes_for_one(
    method: str, names: list[str], expected: bool
) -> None:
    assert is_preflight(scope(*((name, "x") for name in names), method=method)) is expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"allowed_origins": ["*"]}, {b"access-control-allow-origin": b"*"}),
        (
            {"allowed_origins": [ORIGIN]},
            {b"access-control-allow-origin": ORIGIN.encode(), b"vary": b"Origin"},
        ),
        (
            {"allowed_origins": ["*"], "allow_credentials": True},
            {
                b"access-control-allow-origin": ORIGIN.encode(),
                b"access-control-allow-credentials": b"true",
                b"vary": b"Origin",
            },
        ),
    ],
)
def test_an_allowed_origin_may_read_the_answer(
    flags: dict[str, Any], expected: dict[bytes, bytes]
) -> None:
    asked = scope(("origin", ORIGIN), **flags)
    added = cors_headers(asked, [(b"content-type", b"application/json")])
    assert dict(added) == expected | {b"access-control-expose-headers": EXPOSED}
    assert len(added) == len(dict(added))


@pytest.mark.parametrize("allowed", [[], ["http://other.example"], [f"{ORIGIN}.evil"]])
def test_another_origin_may_not(allowed: list[str]) -> None:
    assert cors_headers(scope(("origin", ORIGIN), allowed_origins=allowed), []) == []


def test_what_is_no_page_is_told_nothing() -> None:
    assert cors_headers(scope(allowed_origins=["*"]), []) == []
    without = scope(("origin", ORIGIN), allowed_origins=["*"])
    del without["app"]  # as on the port of the metrics
    assert cors_headers(without, []) == []


def test_what_vllm_has_marked_is_not_marked_twice() -> None:
    asked = scope(("origin", ORIGIN), allowed_origins=[ORIGIN])
    marked = [(b"access-control-allow-origin", ORIGIN.encode()), (b"vary", b"Origin")]
    assert cors_headers(asked, marked) == [(b"access-control-expose-headers", EXPOSED)]
