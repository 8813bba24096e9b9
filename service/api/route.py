"""The route class of Sensefield's own paths: every refusal is an OpenAI error object."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from service.errors import (
    MAX_ECHO,
    BadRequestError,
    RequestError,
    UnsupportedMediaError,
    echo,
)
from service.metrics import REJECTED

MAX_ERRORS = 10
"""Errors told of in one answer."""
UNION_TAGS = ("<text>", "<chat>")
"""What pydantic puts into a path where a value may be of two kinds; no part of the JSON's."""
MAX_NAME = 40
"""Characters of one unknown field's name."""


class SensefieldRoute(APIRoute):
    """Answers RequestError and failed validation in OpenAI's form."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler with the errors of our tree answered."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                return error_response(from_validation(error.errors()))
            except ValidationError as error:
                return error_response(from_validation(error.errors()))
            except HTTPException as error:
                # FastAPI's word for a body that its JSON parser gave up on, or vLLM's own.
                if error.status_code != 400:
                    raise
                return error_response(BadRequestError(str(error.detail)[:MAX_ECHO], "body"))
            except RequestError as error:
                return error_response(error)

        return answer


def error_response(error: RequestError) -> JSONResponse:
    """Return the answer to a refused request, and count it."""
    REJECTED.labels(str(error.status), error.code or error.type).inc()
    return error_answer(error)


def error_answer(error: RequestError) -> JSONResponse:
    """Return an error as the answer to a request."""
    return JSONResponse(error.to_body(), error.status, error.headers)


def from_validation(errors: Iterable[Mapping[str, Any] | str]) -> BadRequestError:
    """Return pydantic's errors as one of ours: the first names the param, ten are told."""
    listed = list(errors)
    told = []
    first: str | None = None
    left = MAX_ECHO
    for error in listed[:MAX_ERRORS]:
        if isinstance(error, str):
            if "Unsupported Media Type" in error:
                return UnsupportedMediaError(  # type: ignore[return-value]
                    "the content type must be application/json", "content-type"
                )
            told.append(error[:MAX_ECHO])
            continue
        path = "body" if error["type"] == "json_invalid" else json_path(error["loc"])
        first = first if first is not None else path
        shown = _shown(error.get("input"), left)
        left -= len(shown)
        told.append(f"{path}: {_message(error)}" + (f" (got {shown})" if shown else ""))
    if len(listed) > MAX_ERRORS:
        told.append(f"and {len(listed) - MAX_ERRORS} more")
    return BadRequestError("; ".join(told), first)


def json_path(location: Iterable[str | int]) -> str:
    """Return ``logit_control.bias[3].add`` for pydantic's ``("body", "logit_control", …)``."""
    path = ""
    for at, part in enumerate(location):
        if at == 0 and part == "body":
            continue
        if isinstance(part, str) and part in UNION_TAGS:
            continue
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            # The name of an unknown field is the client's own.
            name = part if len(part) <= MAX_NAME else part[:MAX_NAME] + "…"
            path += f".{name}" if path else name
    return path or "body"


def _message(error: Mapping[str, Any]) -> str:
    return str(error["msg"]).removeprefix("Value error, ")[:MAX_ECHO]


def _shown(value: object, room: int) -> str:
    """Return a plain value as the message may repeat it, nothing if there is no room."""
    if isinstance(value, list | dict) or room <= 1:
        return ""
    return echo(value, room)
