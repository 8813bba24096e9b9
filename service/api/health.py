"""``/ready``, and the gate that refuses new requests while the server is not ready.

``/health`` is vLLM's: the process is up, and its engine has not died.
"""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import ConfigDict, with_config
from starlette.types import ASGIApp, Receive, Scope, Send
from typing_extensions import TypedDict

from service.access.refusal import error_answer, error_response
from service.api.context import context_of
from service.api.documentation import statuses
from service.errors import NotReadyError

_ASKING = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that are always answered."""


@with_config(ConfigDict(extra="forbid"))
class Readiness(TypedDict):
    """The engine answers."""

    status: Literal["ready"]


router = APIRouter(tags=["health"])


@router.get(
    "/ready",
    response_model=None,
    responses={200: {"model": Readiness}, **statuses(503)},
)
async def ready(request: Request) -> Response:
    """Say whether the engine answers requests and the server takes them."""
    try:
        context_of(request).readiness.check()
    except NotReadyError as error:
        return error_answer(error)
    return JSONResponse(Readiness(status="ready"))


class Gate:
    """ASGI middleware: answers 503 at once while the server is not ready."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 503."""
        if scope["type"] == "http" and scope["method"] not in _ASKING:
            try:
                scope["app"].state.sensefield.readiness.admit()
            except NotReadyError as error:
                await error_response(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)
