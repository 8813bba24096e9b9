"""Limits on requests: bytes of one request, requests of one key, requests of all keys."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette._utils import get_route_path
from starlette.types import ASGIApp, Receive, Scope, Send

from service.access.body_room import BodyMemoryLimit, LimitedBody
from service.access.cors import is_preflight
from service.access.refusal import refuse
from service.access.roles import LIVENESS, VECTORS, is_below, needs_key
from service.access.visit import Visit
from service.errors import (
    HeadersTooLargeError,
    RateLimitedError,
    RequestError,
    SaturatedError,
)
from service.settings import Settings

MAX_HEAD = 32 << 10
"""Bytes of a URL and headers together."""
OPEN_SERVER = ""
"""The name under which requests without a key are counted; no key has it."""
UNCOUNTED = (LIVENESS, "/ready", "/metrics")
"""Paths whose requests are not counted."""
MAX_OF_PAGE = 64
"""Concurrent requests that need no key: files of the playground, and preflights."""
_log = logging.getLogger("vllm.sensefield")


class Admission:
    """Pass a request on while the limits allow it; each API process counts its own requests."""

    def __init__(self, app: ASGIApp, own: Settings) -> None:
        self._app = app
        self._bodies = BodyMemoryLimit(own.max_body_bytes, own.bodies_bytes)
        self._most = own.max_requests
        self._most_of_key = own.key_concurrency
        self._rate: RateLimitItem | None = parse(own.key_rate) if own.key_rate else None
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._running: Counter[str] = Counter()
        self._of_page = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        path = get_route_path(scope)
        if path in UNCOUNTED:
            await self._app(scope, receive, send)
            return
        key = Visit.of(scope).key
        name = OPEN_SERVER if key is None else key.name
        try:
            announced = _announced_bytes(scope)
            is_counted = needs_key(path) and not is_preflight(scope)
            place = self._place(name) if is_counted else self._place_of_page()
            with place, self._bodies.held(announced) as room:
                if _is_file(scope):
                    await self._app(scope, receive, send)
                else:
                    body = LimitedBody(room, scope, receive, send)
                    try:
                        await self._app(scope, body.receive, body.send)
                    except Exception as error:
                        if not body.refused:
                            raise
                        _log.info("a request whose body found no room ended with %r", error)
        except RequestError as error:
            await refuse(error, scope, receive, send)

    @contextmanager
    def _place_of_page(self) -> Iterator[None]:
        """Count a request that needs no key for as long as the context lasts."""
        if self._of_page >= MAX_OF_PAGE:
            raise SaturatedError(
                f"{MAX_OF_PAGE} requests that need no key are running; try again later",
                None,
                SaturatedError.QUEUE_FULL,
            )
        self._of_page += 1
        try:
            yield
        finally:
            self._of_page -= 1

    @contextmanager
    def _place(self, name: str) -> Iterator[None]:
        """Count a request of the named key for as long as the context lasts."""
        if self._rate is not None and not self._limiter.hit(self._rate, name):
            left = self._limiter.get_window_stats(self._rate, name).reset_time - time.time()
            raise RateLimitedError(f"more requests than {self._rate}", max(1, math.ceil(left)))
        if self._most_of_key is not None and self._running[name] >= self._most_of_key:
            raise RateLimitedError(f"more than {self._most_of_key} requests at once", 1)
        if self._running.total() >= self._most:
            raise SaturatedError(
                f"{self._most} requests are running or waiting; try again later",
                None,
                SaturatedError.QUEUE_FULL,
            )
        self._running[name] += 1
        try:
            yield
        finally:
            self._running[name] -= 1
            if not self._running[name]:
                del self._running[name]


def _announced_bytes(scope: Scope) -> int:
    """Return a body's Content-Length, 0 if there is none; check the size of URL and headers."""
    headers = scope["headers"]
    head = len(scope.get("raw_path") or b"") + len(scope.get("query_string", b""))
    if head + sum(len(name) + len(value) for name, value in headers) > MAX_HEAD:
        raise HeadersTooLargeError(f"URL and headers are over {MAX_HEAD} bytes", "headers")
    values = dict(headers)
    if _is_file(scope) or b"transfer-encoding" in values:
        return 0
    return int(values.get(b"content-length", b"0"))


def _is_file(scope: Scope) -> bool:
    """Say whether the body is a vector's file; its route has a limit of its own."""
    return scope.get("method") == "PUT" and is_below(get_route_path(scope), VECTORS)
