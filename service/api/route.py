"""The route class of Sensefield's own paths: every refusal is an OpenAI error object."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import FastAPI, Request, Response, params
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute, request_response
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from service.access.bodies import CheckedRequest, StockRequest
from service.access.parameters import answer_of
from service.access.refusal import error_answer, error_response
from service.access.visit import Visit
from service.api import unknown_fields
from service.api.lazy_lists import reading_lists
from service.api.validation import from_validation
from service.engine.vllm_errors import VLLMError
from service.errors import (
    MAX_ECHO,
    BadRequestError,
    DeadlineError,
    RequestError,
    UnsupportedMediaError,
    echo,
)

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
CLIENT_LEFT = 499
"""nginx's status for a client that has disconnected; only http_requests_total shows it."""
_FAILURES = (VLLMError, ValueError, TypeError, OverflowError, NotImplementedError)
"""Exceptions that vLLM's handlers answer."""
_log = logging.getLogger("vllm.sensefield")


def checked(
    route: APIRoute, handle: Handler, kind: type[CheckedRequest] = CheckedRequest
) -> Handler:
    """Return a route's handler that raises RequestError for a bad body."""
    field = route.body_field
    takes_json = field is not None and not isinstance(field.field_info, params.Form)
    annotation = field.field_info.annotation if field is not None else None
    model = unknown_fields.model_of(route.path, annotation)

    async def answered(request: Request) -> Response:
        if _has_body(request):
            _check_encoding(request)
            if takes_json:
                _check_media_type(request)
        incoming = kind(request.scope, request.receive)
        ignored: list[str] = []
        if model is not None:
            incoming.also = lambda body: ignored.extend(
                unknown_fields.check_unknown(route.path, model, body)
            )
        try:
            answer = await handle(incoming)
        except HTTPException as error:
            # FastAPI wraps every exception of parsing a body.
            if isinstance(error.__cause__, RequestError):
                raise error.__cause__ from None
            raise
        except RequestValidationError as error:
            body = error.body if incoming.parsed is None else incoming.parsed
            raise from_validation(error.errors(), body) from None
        except ValidationError as error:
            raise from_validation(error.errors()) from None
        finally:
            incoming.parsed = None
        # vLLM cancels the request after a disconnect or a timeout, and answers it with null.
        visit = Visit.of(request.scope)
        if visit.cut_off is not None and getattr(answer, "body", None) == b"null":
            return Response(status_code=CLIENT_LEFT if visit.has_left else DeadlineError.status)
        if ignored:
            names = unknown_fields.listed(ignored)
            _log.info("%s ignores unknown fields: %s", route.path, names)
            answer.headers[unknown_fields.HEADER] = names
        return answer

    return answered


def check_bodies(app: FastAPI) -> None:
    """Check the bodies of vLLM's routes like ours, with the same error objects."""
    for route in app.routes:
        if isinstance(route, APIRoute) and not isinstance(route, SensefieldRoute):
            _read_lists(route)
            handle = checked(route, route.get_route_handler(), StockRequest)
            route.app = request_response(_refusing(handle))


def _read_lists(route: APIRoute) -> None:
    if route.dependant.call is not None:
        route.dependant.call = reading_lists(route.dependant.call)


def _has_body(request: Request) -> bool:
    """Say whether the request has a body: on some routes it is optional."""
    headers = request.headers
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def _check_media_type(request: Request) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise UnsupportedMediaError(
            f"{echo(media_type)} cannot be read; allowed: application/json", "content-type"
        )


def _check_encoding(request: Request) -> None:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise UnsupportedMediaError(
            f"{echo(encoding)} is not decoded; allowed: identity", "content-encoding"
        )


def _refusing(handle: Handler) -> Handler:
    async def answer(request: Request) -> Response:
        try:
            return answer_of(await handle(request), request)
        except RequestError as error:
            return error_response(error)
        except (*_FAILURES, HTTPException) as error:
            return answer_of(await _as_app_answers(request, error), request)

    return answer


async def _as_app_answers(request: Request, error: Exception) -> Response:
    """Return the answer of the app's exception handler; raise the error if there is none."""
    handlers = request.app.exception_handlers
    handler = next((handlers[kind] for kind in type(error).__mro__ if kind in handlers), None)
    if handler is None:
        raise error
    response: Response = await handler(request, error)
    return response


class SensefieldRoute(APIRoute):
    """Answers RequestError and failed validation in OpenAI's form."""

    def get_route_handler(self) -> Handler:
        """Return FastAPI's handler, which answers our errors with error objects."""
        _read_lists(self)
        handle = checked(self, super().get_route_handler())

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except HTTPException as error:
                # vLLM and FastAPI raise 400 for a body that they cannot read.
                if error.status_code != 400:
                    raise
                refusal = BadRequestError(str(error.detail)[:MAX_ECHO], "body")
                # After a disconnect the door has already counted the refusal.
                is_gone = isinstance(error.__cause__, ClientDisconnect)
                return error_answer(refusal) if is_gone else error_response(refusal)
            except RequestError as error:
                return error_response(error)
            except _FAILURES as error:
                return answer_of(await _as_app_answers(request, error), request)

        return answer
