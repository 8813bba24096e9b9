"""The route class of Sensefield's own paths: every refusal is an OpenAI error object."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

from fastapi import FastAPI, Request, Response, params
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute, request_response
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from service.access.bodies import CheckedRequest, StockRequest
from service.access.visit import Visit
from service.errors import (
    MAX_ECHO,
    BadRequestError,
    RequestError,
    UnsupportedMediaError,
    echo,
)
from service.json_path import json_path, parts_in
from service.metrics import REJECTED

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
CLIENT_LEFT = 499
"""As nginx has it: nobody sees this answer but the metrics of HTTP."""
MAX_ERRORS = 10
"""Errors told of in one answer."""


def checked(
    route: APIRoute, handle: Handler, kind: type[CheckedRequest] = CheckedRequest
) -> Handler:
    """Return a route's handler with the JSON of its body checked where it is parsed."""
    field = route.body_field
    takes_json = field is not None and not isinstance(field.field_info, params.Form)

    async def answered(request: Request) -> Response:
        if takes_json and _has_body(request):
            _check_media_type(request)
        try:
            answer = await handle(kind(request.scope, request.receive))
        except HTTPException as error:
            # FastAPI's wrapping of whatever parsing a body raises.
            if isinstance(error.__cause__, RequestError):
                raise error.__cause__ from None
            raise
        # What a client that has left asked for vLLM cancels, and answers with nothing.
        is_given_up = Visit.of(request.scope).has_left and getattr(answer, "body", None) == b"null"
        return Response(status_code=CLIENT_LEFT) if is_given_up else answer

    return answered


def check_bodies(app: FastAPI) -> None:
    """Check the bodies of vLLM's routes as those of ours."""
    for route in app.routes:
        if isinstance(route, APIRoute) and not isinstance(route, SensefieldRoute):
            handle = checked(route, route.get_route_handler(), StockRequest)
            route.app = request_response(_refusing(handle))


def _has_body(request: Request) -> bool:
    """Say whether there is one: a route whose body may be left out is asked without."""
    headers = request.headers
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def _check_media_type(request: Request) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise UnsupportedMediaError(
            f"{echo(media_type)} cannot be read; allowed: application/json", "content-type"
        )


def _refusing(handle: Handler) -> Handler:
    async def answer(request: Request) -> Response:
        try:
            return await handle(request)
        except RequestError as error:
            return error_response(error)

    return answer


class SensefieldRoute(APIRoute):
    """Answers RequestError and failed validation in OpenAI's form."""

    def get_route_handler(self) -> Handler:
        """Return FastAPI's handler with the errors of our tree answered."""
        handle = checked(self, super().get_route_handler())

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                return error_response(from_validation(error.errors(), error.body))
            except ValidationError as error:
                return error_response(from_validation(error.errors()))
            except HTTPException as error:
                # vLLM's word, or FastAPI's, for what they give up on.
                if error.status_code != 400:
                    raise
                refusal = BadRequestError(str(error.detail)[:MAX_ECHO], "body")
                # Of a body that broke off the door knows why, and has counted it.
                is_gone = isinstance(error.__cause__, ClientDisconnect)
                return error_answer(refusal) if is_gone else error_response(refusal)
            except RequestError as error:
                return error_response(error)

        return answer


def error_response(error: RequestError) -> JSONResponse:
    """Return the answer to a refused request, and count it."""
    REJECTED.labels(str(error.status), error.kind).inc()
    return error_answer(error)


def error_answer(error: RequestError) -> JSONResponse:
    """Return an error as the answer to a request."""
    return JSONResponse(error.to_body(), error.status, error.headers)


def from_validation(errors: Iterable[Mapping[str, Any] | str], body: Any = None) -> BadRequestError:
    """Return pydantic's errors as one of ours: the first names the param, ten are told.

    Args:
        errors: pydantic's.
        body: the JSON that they are about, if it is at hand.

    """
    listed = list(errors)
    told = []
    first: str | None = None
    left = MAX_ECHO
    for error in listed[:MAX_ERRORS]:
        if isinstance(error, str):
            told.append(error[:MAX_ECHO])
            continue
        where, *rest = error["loc"] or ("body",)
        if where == "body" and body is not None:
            rest = list(parts_in(body, rest))
        path = json_path((where, *rest))
        first = first if first is not None else path
        shown = _shown(error.get("input"), left)
        left -= len(shown)
        told.append(f"{path}: {_message(error)}" + (f" (got {shown})" if shown else ""))
    if len(listed) > MAX_ERRORS:
        told.append(f"and {len(listed) - MAX_ERRORS} more")
    return BadRequestError("; ".join(told), first)


def _message(error: Mapping[str, Any]) -> str:
    return str(error["msg"]).removeprefix("Value error, ")[:MAX_ECHO]


def _shown(value: object, room: int) -> str:
    """Return a plain value as the message may repeat it, nothing if there is no room."""
    if isinstance(value, list | dict) or room <= 1:
        return ""
    return echo(value, room)
