"""Refusals as OpenAI error objects, and how much of a client's input they repeat."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
from starlette.responses import JSONResponse
from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
from vllm.entrypoints.serve.exception_handling.register import init_exception_handler
from vllm.exceptions import VLLMValidationError

from service.access.refusal import error_response
from service.access.visit import Visit
from service.api.route import CLIENT_LEFT, SensefieldRoute, check_bodies
from service.errors import (
    BadRequestError,
    NotFoundError,
    RequestError,
    SaturatedError,
    TooLargeError,
    error_body,
)
from service.metrics import REJECTED


class Inner(BaseModel):
    """Numbers, and nothing else."""

    model_config = ConfigDict(extra="forbid", strict=True)
    numbers: list[int]


class Body(BaseModel):
    """A body."""

    inner: Inner


def app_raising(error: Exception | None = None) -> httpx.AsyncClient:
    """Return a client of an app whose one route takes a Body and raises."""
    router = APIRouter(route_class=SensefieldRoute)

    @router.post("/")
    async def answer(body: Body) -> dict[str, Any]:
        if error is not None:
            raise error
        return body.model_dump()

    app = FastAPI()
    app.include_router(router)
    transport = httpx.ASGITransport(app)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


GOOD = {"inner": {"numbers": [1, 2]}}


async def test_a_body_that_breaks_off_is_counted_where_it_does() -> None:
    def counted() -> float:
        series = REJECTED.labels("400", BadRequestError.type)
        value: float = series._value.get()
        return value

    router = APIRouter(route_class=SensefieldRoute)

    @router.post("/")
    async def answer(body: Body) -> dict[str, Any]:
        return body.model_dump()

    app = FastAPI()
    app.include_router(router)

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(_message: Any) -> None:
        pass

    headers = [(b"content-type", b"application/json"), (b"content-length", b"9")]
    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/", "headers": headers}
    scope |= {"query_string": b"", "root_path": ""}
    before = counted()
    await app(scope, receive, send)
    assert counted() == before
    await error_response(BadRequestError("of something else"))(scope, receive, send)
    assert counted() == before + 1


async def test_a_good_request_passes() -> None:
    async with app_raising() as client:
        answer = await client.post("/", json=GOOD)
    assert (answer.status_code, answer.json()) == (200, GOOD)


async def test_validation_is_a_400_with_param_and_message() -> None:
    async with app_raising() as client:
        answer = await client.post("/", json={"inner": {"numbers": [1, "two", 3], "more": 1}})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["code"] is None
    assert error["param"] == "inner.numbers[1]"
    assert error["message"].startswith("inner.numbers[1]: Input should be a valid integer (got")
    assert error["message"].count("inner.numbers[1]") == 1
    assert "; inner.more: " in error["message"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"text"', b"null", b"3"])
async def test_a_body_of_another_shape_is_a_400(content: bytes) -> None:
    async with app_raising() as client:
        headers = {"content-type": "application/json"}
        answer = await client.post("/", content=content, headers=headers)
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.json()["error"]["param"] == "body"


@pytest.mark.parametrize(
    "error",
    [
        BadRequestError("why", "field", "code"),
        NotFoundError("why", "model", "model_not_found"),
        TooLargeError("why", "body"),
        SaturatedError("why", "distribution", "distribution_budget_exhausted"),
    ],
)
async def test_an_error_of_our_tree_is_answered_as_it_says(error: RequestError) -> None:
    async with app_raising(error) as client:
        answer = await client.post("/", json=GOOD)
    assert answer.status_code == error.status
    assert answer.json() == error.to_body()
    retry_after = None if error.retry_after is None else str(error.retry_after)
    assert answer.headers.get("retry-after") == retry_after


async def test_validation_within_the_route_is_a_400_too() -> None:
    missing = {"type": "missing", "loc": ("body", "prompt"), "msg": "Field required", "input": {}}
    async with app_raising(RequestValidationError([missing])) as client:
        answer = await client.post("/", json=GOOD)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "prompt"


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b'{"inner": "\xff"}'],
    ids=["deep", "not UTF-8"],
)
async def test_a_body_that_the_json_parser_gives_up_on_is_a_400(content: bytes) -> None:
    async with app_raising() as client:
        headers = {"content-type": "application/json"}
        answer = await client.post("/", content=content, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "body"
    assert len(answer.json()["error"]["message"]) < 300


async def test_an_error_nobody_expected_is_not_hidden() -> None:
    async with app_raising(RuntimeError("a bug")) as client:
        with pytest.raises(RuntimeError, match="a bug"):
            await client.post("/", json=GOOD)


@pytest.mark.parametrize("media_type", [None, "text/plain", "application/vnd.x+json", "json", "x"])
async def test_the_wrong_media_type_is_a_415(media_type: str | None) -> None:
    headers = {} if media_type is None else {"content-type": media_type}
    async with app_raising() as client:
        answer = await client.post("/", content=orjson.dumps(GOOD), headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (415, "content-type")


@pytest.mark.parametrize("field", ["logit_control", "distribution"])
async def test_a_route_of_vllms_does_not_pass_over_what_only_ours_know(field: str) -> None:
    app = FastAPI()

    @app.post("/v1/responses")
    async def answer(body: dict[str, Any]) -> dict[str, Any]:
        return body

    check_bodies(app)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        refused = await client.post("/v1/responses", json={field: {}})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, field)
        assert "'/v1/responses' does not know it" in refused.json()["error"]["message"]
        taken = await client.post("/v1/responses", json={field: None})
        assert taken.json() == {field: None}


async def test_a_text_of_which_only_tokens_are_asked_is_bounded() -> None:
    app = FastAPI()

    @app.post("/tokenize")
    async def answer(body: dict[str, Any]) -> int:
        return len(body["prompt"])

    check_bodies(app)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        refused = await client.post("/tokenize", json={"prompt": "a" * (1 << 20)})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "body")
        assert "allowed: 1048576" in refused.json()["error"]["message"]
        taken = await client.post("/tokenize", json={"prompt": "a" * 1_000_000})
        assert taken.json() == 1_000_000


@pytest.mark.parametrize("encoding", ["gzip", "br", "gzip, identity"])
async def test_a_compressed_body_is_a_415(encoding: str) -> None:
    headers = {"content-type": "application/json", "content-encoding": encoding}
    async with app_raising() as client:
        answer = await client.post("/", content=b"\x1f\x8b", headers=headers)
        assert (answer.status_code, answer.json()["error"]["param"]) == (415, "content-encoding")
        headers["content-encoding"] = "identity"
        assert (await client.post("/", content=orjson.dumps(GOOD), headers=headers)).is_success


def stock_app(error: Exception | None = None) -> httpx.AsyncClient:
    """Return a client of an app whose one route is of vLLM's kind, with vLLM's handlers."""
    app = FastAPI()
    init_exception_handler(app)
    app.state.args = Namespace(log_error_stack=False)

    @app.post("/v1/other")
    async def answer(body: Body) -> JSONResponse:
        if error is not None:
            raise error
        refused = create_error_response("`numbers` are wrong", param="inner.0.numbers")
        return JSONResponse(refused.model_dump(), 400, {"x-other": "kept"})

    check_bodies(app)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def test_vllms_routes_refuse_in_the_same_form() -> None:
    async with stock_app() as client:
        wrong = await client.post("/v1/other", json={"inner": {"numbers": ["x"]}})
        returned = await client.post("/v1/other", json=GOOD)
    assert wrong.json()["error"] == {
        "message": "inner.numbers[0]: Input should be a valid integer (got 'x')",
        "type": "invalid_request_error",
        "param": "inner.numbers[0]",
        "code": None,
    }
    assert returned.headers["x-other"] == "kept"
    assert returned.json()["error"] == {
        "message": "inner[0].numbers: `numbers` are wrong",
        "type": "BadRequestError",
        "param": "inner[0].numbers",
        "code": None,
    }


async def test_a_code_that_is_a_word_stays() -> None:
    app = FastAPI()

    @app.get("/ready")
    async def answer() -> JSONResponse:
        return JSONResponse(error_body("hangs", "not_ready_error", code="engine_stalled"), 503)

    check_bodies(app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as it:
        assert (await it.get("/ready")).json()["error"]["code"] == "engine_stalled"


@pytest.mark.parametrize(
    ("error", "message", "param"),
    [
        (
            VLLMValidationError("inner is odd", parameter="inner", value=[1]),
            "inner: is odd",
            "inner",
        ),
        (ValueError("nothing known"), "nothing known", None),
    ],
)
async def test_what_vllm_raises_is_refused_in_the_same_form(
    error: Exception, message: str, param: str | None
) -> None:
    async with stock_app(error) as client:
        told = (await client.post("/v1/other", json=GOOD)).json()["error"]
    assert (told["message"], told["param"], told["code"]) == (message, param, None)


async def test_without_a_body_there_is_no_media_type_to_be_wrong() -> None:
    async with app_raising() as client:
        answer = await client.post("/")
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "body")
        streamed = in_pieces(orjson.dumps(GOOD))
        assert (await client.post("/", content=streamed)).status_code == 415


@pytest.mark.parametrize(("ended", "status"), [("left", CLIENT_LEFT), ("late", 504), ("", 200)])
async def test_who_has_left_is_no_success_in_the_metrics_of_http(ended: str, status: int) -> None:
    def end(visit: Visit) -> None:
        if ended == "left":
            visit.leave()
        elif ended == "late":
            visit.cut_off = "deadline"

    router = APIRouter(route_class=SensefieldRoute)

    @router.post("/")
    async def answer(raw_request: Request) -> None:
        end(Visit.of(raw_request.scope))  # and None, as vLLM's with_cancellation has it

    @router.post("/late")
    async def late(raw_request: Request) -> str:
        end(Visit.of(raw_request.scope))
        return "an answer"

    app = FastAPI()
    app.include_router(router)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.post("/")).status_code == status
        assert (await client.post("/late")).json() == "an answer"


async def in_pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@pytest.mark.parametrize("media_type", ["application/json;charset=utf-8", "Application/JSON ; x"])
async def test_parameters_of_the_media_type_are_passed_over(media_type: str) -> None:
    async with app_raising() as client:
        answer = await client.post(
            "/", content=orjson.dumps(GOOD), headers={"content-type": media_type}
        )
    assert answer.status_code == 200
