"""The error tree: statuses, the OpenAI object, and how much of a client's input is repeated."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import (
    MAX_ECHO,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    ControlFailedError,
    DeadlineError,
    EngineError,
    ForbiddenError,
    HeadersTooLargeError,
    MethodError,
    NotFoundError,
    NotReadyError,
    PreconditionFailedError,
    RateLimitedError,
    RequestError,
    SaturatedError,
    SensefieldError,
    SlowClientError,
    StartupError,
    StoreFullError,
    StoreUnavailableError,
    TooLargeError,
    UnsupportedMediaError,
    echo,
)

STATUSES = {
    BadRequestError: 400,
    AuthenticationError: 401,
    ForbiddenError: 403,
    NotFoundError: 404,
    SlowClientError: 408,
    ConflictError: 409,
    PreconditionFailedError: 412,
    TooLargeError: 413,
    UnsupportedMediaError: 415,
    HeadersTooLargeError: 431,
    EngineError: 500,
    ControlFailedError: 500,
    SaturatedError: 503,
    StoreUnavailableError: 503,
    NotReadyError: 503,
    DeadlineError: 504,
    StoreFullError: 507,
}


@pytest.mark.parametrize(("kind", "status"), STATUSES.items())
def test_each_refusal_has_its_status_and_the_openai_object(
    kind: type[RequestError], status: int
) -> None:
    error = kind("why", "logit_control.bias[3].add", "some_code")
    assert error.status == status
    assert isinstance(error, SensefieldError)
    assert str(error) == "why"
    assert error.to_body() == {
        "error": {
            "message": "logit_control.bias[3].add: why",
            "type": error.type,
            "param": "logit_control.bias[3].add",
            "code": "some_code",
        }
    }


@pytest.mark.parametrize(
    ("param", "message", "led"),
    [
        (None, "why", "why"),
        ("n", "`n` must be at least 1", "n: must be at least 1"),
        ("n", "n must be at least 1", "n: must be at least 1"),
        ("n", "n: must be at least 1", "n: must be at least 1"),
        ("n", "no more", "n: no more"),
        ("stop", "stop_token_ids are long", "stop: stop_token_ids are long"),
        ("logit_bias['01']", "is no token", "logit_bias['01']: is no token"),
    ],
)
def test_a_message_begins_with_the_path_once(param: str | None, message: str, led: str) -> None:
    assert BadRequestError(message, param).to_body()["error"]["message"] == led


def test_param_and_code_are_null_where_there_are_none() -> None:
    body = json.loads(json.dumps(BadRequestError("why").to_body()))
    assert body["error"]["param"] is None
    assert body["error"]["code"] is None


def test_what_may_pass_asks_to_come_back() -> None:
    asking = {kind for kind in STATUSES if kind.retry_after}
    assert asking == {SaturatedError, StoreUnavailableError, NotReadyError}


def test_a_key_that_asks_too_much_is_told_when_to_come_back() -> None:
    error = RateLimitedError("why", 7)
    assert (error.status, error.headers) == (429, {"Retry-After": "7"})
    assert error.to_body()["error"]["code"] == "rate_limit_exceeded"


def test_a_method_that_there_is_not_names_those_that_there_are() -> None:
    error = MethodError("why", {"POST", "GET"})
    assert (error.status, error.headers) == (405, {"Allow": "GET, POST"})
    assert error.to_body()["error"]["code"] == "method_not_allowed"


def test_every_refusal_is_listed_here() -> None:
    assert set(RequestError.__subclasses__()) == {*STATUSES, MethodError, RateLimitedError}
    assert not issubclass(StartupError, RequestError)


@given(st.text(max_size=400) | st.integers() | st.binary(max_size=400) | st.lists(st.text()))
def test_no_more_than_200_characters_are_echoed(value: object) -> None:
    shown = echo(value)
    assert len(shown) <= MAX_ECHO == 200
    if len(repr(value)) <= MAX_ECHO:
        assert shown == repr(value)
    else:
        assert shown.endswith("…")
        assert repr(value).startswith(shown[:-1])
    shown.encode()  # a lone surrogate in it would break the answer
