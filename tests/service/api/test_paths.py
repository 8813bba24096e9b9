"""The router's own answers: to unknown paths and methods, and to HEAD."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Response
from starlette.exceptions import HTTPException

from service.access.visit import Visit
from service.api.paths import Heads, answer_unknown_paths
from service.playground.page import mount


@pytest.fixture
def app() -> FastAPI:
    made = FastAPI()
    mount(made)
    answer_unknown_paths(made)

    @made.get("/v1/things/{name}")
    async def get_thing(name: str) -> str:
        return name

    @made.delete("/v1/things/{name}")
    async def delete_thing(name: str) -> None: ...

    @made.post("/v1/chat")
    async def chat() -> None: ...

    @made.get("/raises/{status}")
    async def raises(status: int) -> None:
        raise HTTPException(status, "in words", {"x-own": "kept"})

    made.add_middleware(Heads)
    return made


async def ask(app: Any, method: str, path: str) -> httpx.Response:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://test"
    ) as client:
        return await client.request(method, path)


@pytest.mark.parametrize(
    "path", ["/v1/nothing", "/v1/things/a%2Fb", "/playground/nothing", "/" + "x" * 900]
)
async def test_an_unknown_path_is_an_error_object(app: FastAPI, path: str) -> None:
    answer = await ask(app, "PUT" if "things" in path else "GET", path)
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert (error["type"], error["param"], error["code"]) == (
        "not_found_error",
        None,
        "unknown_url",
    )
    assert "there is no such path" in error["message"]
    assert len(error["message"]) < 300


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/things/a", "DELETE, GET, HEAD"),
        ("GET", "/v1/chat", "POST"),
        ("POST", "/playground/index.html", "GET, HEAD"),
    ],
)
async def test_an_unknown_method_is_told_which_there_are(
    app: FastAPI, method: str, path: str, allowed: str
) -> None:
    answer = await ask(app, method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    error = answer.json()["error"]
    told = f"{method} '{path}': no such method; allowed: {allowed}"
    assert error["message"] == told
    assert (error["type"], error["code"]) == ("invalid_request_error", "method_not_allowed")


async def test_the_methods_below_a_proxys_path_are_the_same(app: FastAPI) -> None:
    async def rooted(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "root_path": "/x"}, receive, send)

    answer = await ask(rooted, "PUT", "/x/v1/things/a")
    assert (answer.status_code, answer.headers["allow"]) == (405, "DELETE, GET, HEAD")


@pytest.mark.parametrize(
    ("status", "kind"), [(418, "invalid_request_error"), (502, "server_error")]
)
async def test_other_errors_of_the_router_are_error_objects_too(
    app: FastAPI, status: int, kind: str
) -> None:
    answer = await ask(app, "GET", f"/raises/{status}")
    assert (answer.status_code, answer.headers["x-own"]) == (status, "kept")
    assert answer.json()["error"] == {
        "message": "in words",
        "type": kind,
        "param": None,
        "code": None,
    }


@pytest.mark.parametrize("path", ["/v1/things/a", "/openapi.json", "/playground/", "/v1/nothing"])
async def test_head_is_get_without_the_body(app: FastAPI, path: str) -> None:
    head, get = await ask(app, "HEAD", path), await ask(app, "GET", path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers["content-length"] == get.headers["content-length"]
    assert (await ask(app, "HEAD", "/v1/chat")).status_code == 405


async def test_the_audit_log_knows_the_route_of_a_head(app: FastAPI) -> None:
    scopes = []

    async def kept(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        Visit.of(scope).bytes = 7
        await app(scope, receive, send)

    await ask(kept, "HEAD", "/v1/things/a")
    (scope,) = scopes
    assert (scope["method"], scope["route"].path) == ("HEAD", "/v1/things/{name}")


async def test_a_response_of_a_route_is_left_alone(app: FastAPI) -> None:
    @app.get("/own")
    async def own() -> Response:
        return Response("mine", 404)

    assert (await ask(app, "GET", "/own")).text == "mine"
