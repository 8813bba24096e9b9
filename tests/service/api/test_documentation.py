"""What the OpenAPI says of a route's answers, beside what the route says itself."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from service.api.documentation import STATUSES, document, statuses


class Body(BaseModel):
    """A body."""

    number: int


class AnthropicError(BaseModel):
    """The error object that vLLM says its route has."""

    type: str


@pytest.fixture(scope="module")
def app() -> FastAPI:
    made = FastAPI()

    @made.get("/health")
    async def health() -> None: ...

    @made.get("/metrics")
    async def metrics() -> None: ...

    @made.get("/v1/things/{name}", responses=statuses(409))
    async def get_thing(name: str) -> None: ...

    @made.post("/v1/things")
    async def make_thing(body: Body) -> None: ...

    @made.post("/v1/messages", responses={400: {"model": AnthropicError}})
    async def message(body: Body) -> None: ...

    document(made)
    return made


def told(app: FastAPI, method: str, path: str) -> dict[str, Any]:
    answers: dict[str, Any] = app.openapi()["paths"][path][method]["responses"]
    return answers


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("get", "/health", "200 503"),
        ("get", "/metrics", "200 401 403"),
        ("get", "/v1/things/{name}", "200 400 401 403 404 409 413 429 431 503"),
        ("post", "/v1/messages", "200 400 401 403 408 413 415 429 431 500 503 504"),
        ("post", "/v1/things", "200 400 401 403 408 413 415 429 431 500 503 504"),
    ],
)
def test_each_status_is_told_of(app: FastAPI, method: str, path: str, expected: str) -> None:
    assert " ".join(told(app, method, path)) == expected


def test_errors_are_the_error_object(app: FastAPI) -> None:
    error = {"$ref": "#/components/schemas/Error"}
    conflict = told(app, "get", "/v1/things/{name}")["409"]
    assert conflict["description"] == STATUSES[409]
    assert conflict["content"]["application/json"]["schema"] == error
    anthropic = {"$ref": "#/components/schemas/MessagesError"}
    for status, answer in told(app, "post", "/v1/messages").items():
        if status >= "400":
            assert answer["content"]["application/json"]["schema"] == anthropic
    assert {"message", "type", "param", "code"} == set(
        app.openapi()["components"]["schemas"]["Error"]["properties"]["error"]["required"]
    )


def test_a_client_is_told_when_to_come_again(app: FastAPI) -> None:
    answers = told(app, "post", "/v1/things")
    assert {status for status in answers if "headers" in answers[status]} == {"429", "503"}


def test_a_key_may_be_needed_where_it_may(app: FastAPI) -> None:
    paths = app.openapi()["paths"]
    assert "security" not in paths["/health"]["get"]
    assert paths["/v1/things"]["post"]["security"] == [{"key": []}, {"x-api-key": []}, {}]


async def test_the_server_serves_it(app: FastAPI) -> None:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get("/openapi.json")
    assert answer.json() == app.openapi()
    assert answer.json()["info"]["title"] == "Sensefield"
