"""Requests whose JSON has been checked before a route reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from fastapi import Request

from service.access.field_sizes import check_fields
from service.access.grammars import FIELD, grammar_field
from service.access.json_values import check_values, parse
from service.access.large_bodies import LARGE, check_size, check_tokenized
from service.access.visit import Visit
from service.errors import BadRequestError, echo
from service.pieces import in_slices
from service.settings import settings

_OWN = ("logit_control", "distribution")


class CheckedRequest(Request):
    """A request whose JSON has been checked."""

    parsed: dict[str, Any] | None = None
    """The body, once it has been parsed."""
    also: Callable[[dict[str, Any]], None] | None = None
    """A further check of the parsed body."""

    async def json(self) -> dict[str, Any]:
        """Return the parsed body; raise BadRequestError for values that are not allowed."""
        data = await self.body()
        await in_slices(check_size(data))
        body = parse(data)
        if len(data) > LARGE:
            await asyncio.sleep(0)
        self.parsed, visit = body, Visit.of(self.scope)
        visit.sent = frozenset(name for name, value in body.items() if value is not None)
        own = settings()
        check_values(body)
        args = getattr(self.app.state, "args", None)
        trusts = getattr(args, "trust_request_chat_template", False)
        check_fields(body, own.max_tokens, trusts)
        FIELD.set(grammar_field(body))
        if own.audit_prompts:
            asked = ("messages", "prompt", "input")
            visit.prompt = next((body[k] for k in asked if k in body), None)
        if self.also is not None:
            self.also(body)
        if len(data) > LARGE:  # the validation that follows takes a while, too
            await asyncio.sleep(0)
        return body


class StockRequest(CheckedRequest):
    """A request to one of vLLM's routes, which would ignore Sensefield's fields."""

    async def json(self) -> dict[str, Any]:
        """Return the parsed body; raise BadRequestError for a field that would be ignored."""
        body = await super().json()
        check_tokenized(self.url.path, len(await self.body()))
        for field in _OWN:
            if body.get(field) is not None:
                raise BadRequestError(
                    f"{echo(self.url.path)} does not know it; allowed on /v1/chat/completions and "
                    "/v1/completions",
                    field,
                )
        if self.url.path == "/v1/responses":
            name_messages(body)
        return body


def name_messages(body: dict[str, Any]) -> None:
    """Add the type to each message of a response's input; OpenAI lets a client leave it out."""
    items = body.get("input")
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict) and "role" in item and "content" in item:
            item.setdefault("type", "message")
