"""How much may come in: sizes of a request, requests of a key, requests in all."""

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

from service.access.body_room import BodyRoom, CountedBody
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
OPEN_SERVER = "nobody"
"""What requests without a key count as."""
UNCOUNTED = (LIVENESS, "/ready", "/metrics")
"""Paths that take no place."""
MAX_OF_PAGE = 64
"""Requests at once that need no key: files of the playground, and preflights."""
_log = logging.getLogger("vllm.sensefield")


class Admission:
    """Lets a request on while there is room for it; each API process counts its own."""

    def __init__(self, app: ASGIApp, own: Settings) -> None:
        self._app = app
        self._bodies = BodyRoom(own.max_body_bytes, own.bodies_bytes)
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
                    body = CountedBody(room, scope, receive, send)
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
        """Hold one of the places of requests that have no key, and take no other."""
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
        """Hold a place in the server for as long as the context lasts."""
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
    """Return the bytes that a body is said to have, 0 if nobody says; its head is checked."""
    headers = scope["headers"]
    head = len(scope.get("raw_path") or b"") + len(scope.get("query_string", b""))
    if head + sum(len(name) + len(value) for name, value in headers) > MAX_HEAD:
        raise HeadersTooLargeError(f"URL and headers are over {MAX_HEAD} bytes", "headers")
    told = dict(headers)
    if _is_file(scope) or b"transfer-encoding" in told:
        return 0
    return int(told.get(b"content-length", b"0"))


def _is_file(scope: Scope) -> bool:
    """Say whether the body may be a vector's file, whose route knows how large it may be."""
    return scope.get("method") == "PUT" and is_below(get_route_path(scope), VECTORS)
