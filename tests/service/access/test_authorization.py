"""Who gets past: every path but liveness needs a key, and the right role."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from service.access.authorization import Authorization
from service.access.keys import Key, KeyRing
from service.access.visit import Visit

ALICE = Key.of("alice", ["inference"], "a-secret")
MEG = Key.of("meg", ["metrics"], "m-secret")


async def routes(scope: Any, receive: Any, send: Any) -> None:
    """Answer every path with who came."""
    app = FastAPI()

    @app.api_route("/{path:path}", methods=["GET", "POST", "OPTIONS"])
    async def answer(request: Request) -> dict[str, Any]:
        key = Visit.of(request.scope).key
        return {"key": key and key.name}

    @app.websocket("/v1/realtime")
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close()

    await app(scope, receive, send)


GUARDED = Authorization(routes, lambda: KeyRing([MEG, ALICE]))


async def ask(app: Any, method: str, path: str, *headers: tuple[str, str]) -> httpx.Response:
    """Return the answer to a request."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport) as client:
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers]
        # Whole, or // would begin the name of a host.
        return await client.request(method, f"http://test{path}", headers=encoded)


def bearer(secret: str, scheme: str = "Bearer") -> tuple[str, str]:
    return "authorization", f"{scheme} {secret}"


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize(
    "path",
    [
        *("/v1/chat/completions", "/metrics", "/openapi.json", "/unknown", "//", "/health/"),
        *("//health", "/healthz", "/Health", "/%2fhealth", "/health%00"),
    ],
)
async def test_without_a_key_nothing_but_liveness_is_told(method: str, path: str) -> None:
    answer = await ask(GUARDED, method, path, ("host", "localhost/health"))
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"]["type"] == "authentication_error"


async def test_liveness_needs_no_key() -> None:
    assert (await ask(GUARDED, "GET", "/health")).json() == {"key": None}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/playground", 200),
        ("/playground/js/main.js", 200),
        ("/", 200),
        ("/playgrounds", 401),
        ("//playground", 401),
        ("/v1/playground", 401),
    ],
)
async def test_the_pages_files_need_no_key(path: str, status: int) -> None:
    assert (await ask(GUARDED, "GET", path)).status_code == status


@pytest.mark.parametrize(
    "headers",
    [
        [bearer("wrong")],
        [bearer("")],
        [bearer("a-secret", "Basic")],
        [("authorization", "a-secret")],
        [("x-api-key", "wrong")],
        [("x-api-key", "Bearer a-secret")],
        [("x-api-key", "a-secret"), ("x-api-key", "a-secret")],
        [bearer("wrong"), ("x-api-key", "a-secret")],
        [bearer("wrong"), bearer("a-secret")],
        [bearer("a-secret"), bearer("a-secret")],
        [bearer("\xff\xfe")],
    ],
)
async def test_a_wrong_key_is_none(headers: list[tuple[str, str]]) -> None:
    assert (await ask(GUARDED, "GET", "/v1/models", *headers)).status_code == 401


PREFLIGHT = (("origin", "http://app.example"), ("access-control-request-method", "POST"))


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("OPTIONS", PREFLIGHT, 200),
        ("OPTIONS", PREFLIGHT[:1], 401),
        ("OPTIONS", PREFLIGHT[1:], 401),
        ("POST", PREFLIGHT, 401),
    ],
)
async def test_a_browser_asks_without_a_key_what_it_may_send(
    method: str, headers: Any, status: int
) -> None:
    assert (await ask(GUARDED, method, "/v1/models", *headers)).status_code == status
    # Where no middleware answers it, a route would.
    alone = Authorization(routes, lambda: KeyRing([MEG, ALICE]), answers_preflights=False)
    assert (await ask(alone, method, "/v1/models", *headers)).status_code == 401


@pytest.mark.parametrize(
    "header",
    [
        *(bearer("a-secret", scheme) for scheme in ("Bearer", "bearer", "BEARER")),
        ("x-api-key", "a-secret"),
    ],
)
async def test_the_right_key_gets_past(header: tuple[str, str]) -> None:
    answer = await ask(GUARDED, "GET", "/v1/models", header)
    assert answer.json() == {"key": "alice"}


@pytest.mark.parametrize(
    ("secret", "path", "status"),
    [
        ("a-secret", "/metrics", 403),
        ("m-secret", "/metrics", 200),
        ("m-secret", "/v1/models", 403),
        ("a-secret", "/collective_rpc", 403),
    ],
)
async def test_a_key_opens_what_its_roles_open(secret: str, path: str, status: int) -> None:
    answer = await ask(GUARDED, "GET", path, bearer(secret))
    assert answer.status_code == status
    if status == 403:
        error = answer.json()["error"]
        assert (error["type"], error["code"]) == ("permission_error", "role_missing")
        assert repr(path) in error["message"]


async def test_the_path_below_a_root_is_judged_as_the_router_sees_it() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["path"])
        await routes({**scope, "root_path": ""}, receive, send)

    async def rooted(scope: Any, receive: Any, send: Any) -> None:
        await Authorization(app, lambda: KeyRing([ALICE]))(
            {**scope, "root_path": "/x"}, receive, send
        )

    assert (await ask(rooted, "GET", "/x/health")).status_code == 200
    assert (await ask(rooted, "GET", "/x/v1/models")).status_code == 401
    assert (await ask(rooted, "GET", "/xhealth")).status_code == 401
    assert seen == ["/x/health"]


async def test_without_keys_the_server_is_open() -> None:
    answer = await ask(Authorization(routes, KeyRing), "GET", "/metrics")
    assert answer.json() == {"key": None}


def test_a_websocket_needs_a_key_too() -> None:
    client = TestClient(GUARDED)
    with pytest.raises(WebSocketDisconnect) as closed, client.websocket_connect("/v1/realtime"):
        pass
    assert closed.value.code == 1008
    headers = dict([bearer("a-secret")])
    with client.websocket_connect("/v1/realtime", headers=headers) as socket:
        assert socket.receive()["type"] == "websocket.close"
