"""The readiness route and the gate, in an application of their own."""

from __future__ import annotations

from types import SimpleNamespace

import httpx
import pytest
from fastapi import FastAPI, Response

from service.api import health
from service.errors import NotReadyError


class StubReadiness:
    """Ready, until given a reason not to be."""

    reason: NotReadyError | None = None

    def admit(self) -> None:
        if self.reason is not None:
            raise self.reason

    def check(self) -> None:
        self.admit()


@pytest.fixture
def readiness() -> StubReadiness:
    return StubReadiness()


@pytest.fixture
def client(readiness: StubReadiness) -> httpx.AsyncClient:
    app = FastAPI()
    app.include_router(health.router)
    app.add_middleware(health.Gate)
    app.state.sensefield = SimpleNamespace(readiness=readiness)

    @app.api_route("/echo", methods=["GET", "POST", "PUT", "DELETE"])
    async def echo() -> Response:
        return Response("served")

    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def test_a_ready_server_says_so_and_serves(client: httpx.AsyncClient) -> None:
    answer = await client.get("/ready")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})
    for method in ("GET", "POST", "PUT", "DELETE"):
        assert (await client.request(method, "/echo")).text == "served"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_one_that_is_not_says_why_and_refuses_newcomers(
    client: httpx.AsyncClient, readiness: StubReadiness, method: str
) -> None:
    readiness.reason = NotReadyError("it hangs", code="engine_stalled")
    told = {
        "message": "it hangs",
        "type": "not_ready_error",
        "param": None,
        "code": "engine_stalled",
    }
    for answer in (await client.get("/ready"), await client.request(method, "/echo")):
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "5"
        assert answer.json() == {"error": told}
    assert (await client.get("/echo")).text == "served"
