"""How requests end, by what ends them; each counted once, with its controls."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from http import HTTPStatus

import pytest
from prometheus_client import REGISTRY
from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
from vllm.exceptions import GracefulHTTPError
from vllm.v1.engine.exceptions import EngineDeadError

from service.access.visit import Visit
from service.api.outcome import counted
from service.errors import (
    BadRequestError,
    DeadlineError,
    EngineError,
    NotReadyError,
    RequestError,
    SaturatedError,
)


def count(outcome: str) -> float:
    labels = {"route": "score", "outcome": outcome}
    return REGISTRY.get_sample_value("sensefield_requests_total", labels) or 0.0


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (BadRequestError("no"), "client_error"),
        (SaturatedError("no"), "unavailable"),
        (GracefulHTTPError("ends", HTTPStatus.SERVICE_UNAVAILABLE), "unavailable"),
        (GracefulHTTPError("hangs", HTTPStatus.GATEWAY_TIMEOUT), "server_error"),
        (EngineDeadError(), "server_error"),
        (asyncio.CancelledError(), "cancelled"),
        (KeyError("a bug"), "server_error"),
        (None, "ok"),
    ],
)
@pytest.mark.parametrize("cut_off", [None, "deadline"])
def test_what_ends_a_request_says_how(
    error: BaseException | None, name: str, cut_off: str | None
) -> None:
    visit = Visit()
    expected = cut_off or name
    before = count(expected)
    told = (type(error), RequestError) if error else ()
    with suppress(*told), counted("score", visit):
        visit.cut_off = cut_off
        if error is not None:
            raise error
    assert visit.outcome == expected
    assert count(expected) == before + 1
    assert REGISTRY.get_sample_value("sensefield_in_flight_requests") == 0


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (HTTPStatus.SERVICE_UNAVAILABLE, NotReadyError),
        (HTTPStatus.GATEWAY_TIMEOUT, DeadlineError),
        (HTTPStatus.INTERNAL_SERVER_ERROR, EngineError),
    ],
)
def test_what_the_server_ends_is_told_as_an_error_of_ours(
    status: HTTPStatus, told: type[RequestError]
) -> None:
    with pytest.raises(told, match="it ends") as raised, counted("score", Visit()):
        raise GracefulHTTPError("it ends", status)
    assert raised.value.status == status


def test_a_dead_engine_is_the_same_error_on_every_route() -> None:
    with pytest.raises(EngineError) as raised, counted("score", Visit()):
        raise EngineDeadError
    stock = create_error_response(EngineDeadError()).error
    assert (raised.value.status, raised.value.type) == (stock.code, stock.type)


def test_controls_are_taken_down_once() -> None:
    labels = {"kind": "token_bias"}
    before = REGISTRY.get_sample_value("sensefield_controlled_requests_total", labels) or 0.0
    visit = Visit()
    with counted("score", visit) as outcome:
        for _ in range(3):
            outcome.uses({"token_bias": 2})
    assert visit.controls == {"token_bias": 2}
    after = REGISTRY.get_sample_value("sensefield_controlled_requests_total", labels)
    assert after == before + 1
