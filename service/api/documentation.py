"""The statuses and error objects of all routes in the OpenAPI.

A route lists its own statuses. The statuses of the door, the readiness gate and the JSON checks
are added here, to vLLM's routes as to ours.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.routing import request_response
from starlette.routing import Route

from service import __version__
from service.access.admission import UNCOUNTED
from service.access.dialect import speaks_anthropic
from service.access.roles import LIVENESS, needs_key
from service.api import unknown_fields

STATUSES = {
    200: "Done.",
    201: "The name is new.",
    204: "Deleted.",
    304: "If-None-Match names this content.",
    400: "A value that is not allowed, or a field that is none; `param` names it.",
    401: "No key, or one that the server does not know.",
    403: "A key without the role for this path.",
    404: "Unknown model, vector or response.",
    408: "The request took too long to come; the connection closes.",
    409: "A vector's name that exists, or a vector that this model cannot use.",
    412: "If-Match or If-None-Match does not hold.",
    413: "The body is too large.",
    415: "A body of another media type.",
    429: "More than the key's name may have; see Retry-After.",
    431: "URL and headers are too large.",
    500: "The engine has died.",
    503: "No room now, or the server is not ready; see Retry-After.",
    504: "The request took longer than it may, or the engine hangs.",
    507: "The vector store is full.",
}
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {
                    "type": "string",
                    "description": "The field's path, what is wrong, and what is allowed.",
                },
                "type": {"type": "string", "description": "The kind of error."},
                "param": {
                    "type": ["string", "null"],
                    "description": "JSON path of the field, as in logit_control.bias[3].add.",
                },
                "code": {"type": ["string", "null"], "description": "A word for programs."},
            },
        }
    },
}
MESSAGES_ERROR = {
    "type": "object",
    "required": ["type", "error", "request_id"],
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {
                "type": {"type": "string", "description": "The kind of error."},
                "message": {"type": "string", "description": "What is wrong, and what is allowed."},
            },
        },
        "request_id": {"type": "string", "description": "As in the header."},
    },
}
"""Anthropic's form, on `/v1/messages` and below it."""
_KEYED = (401, 403)
_COUNTED = (413, 429, 431, 503)
_POSTED = (400, 408, 415, 500, 504)
_RETRIED = {"429", "503"}
_IGNORED = {
    "description": "Fields of the request that were passed over, if there were any.",
    "schema": {"type": "string"},
}
_RETRY_AFTER = {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}


def statuses(*own: int) -> dict[int | str, dict[str, Any]]:
    """Return a route's ``responses`` for its own statuses."""
    return {status: {"description": STATUSES[status]} for status in own}


def document(app: FastAPI) -> None:
    """Make the app's OpenAPI complete; it is built at the first request for it."""
    app.title, app.version = "Sensefield", __version__

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, routes=app.routes)
            app.openapi_schema = completed(made)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
    for route in app.routes:
        if isinstance(route, Route) and route.path == app.openapi_url:
            route.app = request_response(_made_aside(app, route.endpoint))


def _made_aside(app: FastAPI, endpoint: Any) -> Any:
    """Return FastAPI's endpoint with the OpenAPI built in a thread, which takes a second once."""

    async def answer(request: Request) -> Response:
        await asyncio.to_thread(app.openapi)
        response: Response = await endpoint(request)
        return response

    return answer


def completed(spec: dict[str, Any]) -> dict[str, Any]:
    """Return FastAPI's OpenAPI with errors, security schemes and headers added."""
    components = spec["components"]
    components["schemas"]["Error"] = ERROR
    components["schemas"]["MessagesError"] = MESSAGES_ERROR
    components["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer"},
        "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    }
    for path, operations in spec["paths"].items():
        for operation in operations.values():
            if needs_key(path):
                operation["security"] = [{"key": []}, {"x-api-key": []}, {}]
            answers = operation["responses"]
            answers.pop("422", None)
            for status in _added(path, operation):
                answers.setdefault(str(status), {"description": STATUSES[status]})
            for status, answer in answers.items():
                _describe_error(status, answer, path)
            if path in unknown_fields.ROUTES:
                answers["200"].setdefault("headers", {})[unknown_fields.HEADER] = _IGNORED
            operation["responses"] = dict(sorted(answers.items()))
    spec["paths"][LIVENESS]["get"]["responses"]["503"] = {"description": STATUSES[500]}
    return spec


def _added(path: str, operation: dict[str, Any]) -> list[int]:
    """Return the statuses that the middlewares before a route may answer with."""
    added: list[int] = []
    if needs_key(path):
        added += _KEYED
    if path not in UNCOUNTED:
        added += _COUNTED
    if "requestBody" in operation:
        added += _POSTED
    elif "parameters" in operation:
        added.append(400)
    if "{" in path:
        added.append(404)
    return added


def _describe_error(status: str, answer: dict[str, Any], path: str) -> None:
    """Describe an error as OpenAI's error object, or Anthropic's on its paths."""
    if status < "400":
        return
    name = "MessagesError" if speaks_anthropic(path) else "Error"
    schema = {"$ref": f"#/components/schemas/{name}"}
    answer["content"] = {"application/json": {"schema": schema}}
    if status in _RETRIED:
        answer["headers"] = {"Retry-After": _RETRY_AFTER}
