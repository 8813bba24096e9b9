"""Answers of the router itself: to unknown paths, to unknown methods, and to HEAD."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.access.dialect import openai_error
from service.access.refusal import error_response
from service.errors import MethodError, NotFoundError, echo


def answer_unknown_paths(app: FastAPI) -> None:
    """Answer the router's errors with error objects."""

    async def answer(request: Request, error: Any) -> Response:
        return router_error(request, error)

    # vLLM has its own handler for FastAPI's HTTPException, a subclass of this one.
    app.add_exception_handler(HTTPException, answer)


def router_error(request: Request, error: HTTPException) -> Response:
    """Return the answer to a request that matches no route."""
    scope = request.scope
    asked = f"{request.method} {echo(request.url.path)}"
    if error.status_code == 404:
        return error_response(NotFoundError(f"{asked}: there is no such path", code="unknown_url"))
    if error.status_code == 405:
        allowed = methods_of(request.app.routes, scope) or {"GET", "HEAD"}
        names = ", ".join(sorted(allowed))
        return error_response(MethodError(f"{asked}: no such method; allowed: {names}", allowed))
    body = openai_error(error.status_code, str(error.detail))
    return JSONResponse(body, error.status_code, error.headers)


def methods_of(routes: Iterable[BaseRoute], scope: Scope) -> set[str]:
    """Return the methods of all routes with a request's path; HEAD comes with GET."""
    whole = {**scope, "root_path": scope.get("app_root_path", scope.get("root_path", ""))}
    found: set[str] = set()
    for route in routes:
        methods: set[str] | None = getattr(route, "methods", None)
        if methods and route.matches({**whole, "method": min(methods)})[0].value:
            found |= methods
    return found | {"HEAD"} if "GET" in found else found


class Heads:
    """ASGI middleware: answers HEAD as GET, without the body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def head(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        # A copy: uvicorn reads the method of its own scope to decide whether a body follows.
        as_get = {**scope, "method": "GET"}
        try:
            await self._app(as_get, receive, head)
        finally:
            if "route" in as_get:  # for the audit log
                scope["route"] = as_get["route"]
