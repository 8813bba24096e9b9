"""What counts as grown, and the page that says so."""

from __future__ import annotations

import pytest

from loadtests.cases.chats import DISTRIBUTION, LOGPROBS
from loadtests.cases.exchanges import exchanges
from loadtests.measure.memory import short_request
from loadtests.soak import (
    CHECK_EVERY,
    EXCHANGE_EVERY,
    LEAVE_EVERY,
    Look,
    Soak,
    checked_requests,
    page,
)
from tests.loadtests.pages import MACHINE

MIB = 2**20


def looks(*resident: float, files: int = 50, series: int = 400) -> list[Look]:
    """Return looks at an API server of so many MiB."""
    return [
        Look(at / 2, {"API server": int(size * MIB)}, files, series)
        for at, size in enumerate(resident)
    ]


def test_what_settles_early_has_not_grown() -> None:
    assert Soak({}, looks(100, 180, 200, 201, 202, 200, 201, 203)).grown() == []


def test_memory_that_goes_on_growing_has() -> None:
    (grown,) = Soak({}, looks(200, 200, 202, 204, 206, 208, 210, 212)).grown()
    assert grown == "API server: 203 to 211 MiB"


def test_one_more_file_or_series_has_grown() -> None:
    seen = [*looks(*[200] * 4), *looks(*[200] * 4, files=51, series=401)]
    assert Soak({}, seen).grown() == ["files: 50 to 51", "series: 400 to 401"]


def test_a_look_out_of_line_is_not_growth() -> None:
    assert Soak({}, looks(*[200] * 14, 900, 200)).grown() == []


def test_requests_of_every_kind_are_checked_and_left() -> None:
    bodies = [request.payload for request in checked_requests()]
    steered = [body["logit_control"] for body in bodies if "logit_control" in body]
    assert len(bodies) == 24
    assert all(body["temperature"] == 0 for body in bodies)
    assert sum("bias" in control for control in steered) == 8
    assert sum(control["steer"][0].get("at") == "residual" for control in steered) == 8
    # Every checked request has its turn, and some that are not checked are left.
    assert CHECK_EVERY % LEAVE_EVERY != 0


def test_requests_of_every_kind_are_sent() -> None:
    numbers = [number for number in range(2000) if number % CHECK_EVERY]
    others = [number for number in numbers if number % EXCHANGE_EVERY == 1]
    kinds = {exchanges(number // EXCHANGE_EVERY)[0].holds for number in others}
    paths = {exchanges(number // EXCHANGE_EVERY)[0].path for number in others}
    assert {"/v1/lens", "/v1/score", "/v1/vectors", "/v1/vectors/soak-3"} <= paths
    assert b"Once upon" in kinds
    assert b"number 7" in kinds
    chats = [number for number in numbers if number not in others]
    for found in (chats, [number for number in chats if number % LEAVE_EVERY == 0]):
        assert {short_request(number).marker for number in found} >= {DISTRIBUTION, LOGPROBS}
        assert {number % 8 for number in found} == set(range(8))


@pytest.mark.parametrize(
    ("wrong", "told"), [([], "0 differ"), (["'a' instead of 'b'"], "'a' instead of 'b'")]
)
def test_the_page_tells_what_was_seen(wrong: list[str], told: str) -> None:
    seen = Soak({}, looks(*[200] * 8), answered=500, left=50, checked=25, wrong=wrong)
    text = page(seen, 5, MACHINE)
    assert "# 5 minutes of mixed load" in text
    assert "500 requests" in text
    assert "from the second quarter to the last: nothing." in text
    assert told in text
