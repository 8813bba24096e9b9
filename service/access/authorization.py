"""Authorization by API key, decided on the path that the router will see."""

from __future__ import annotations

from collections.abc import Callable

from starlette._utils import get_route_path
from starlette.types import ASGIApp, Receive, Scope, Send

from service.access.cors import is_preflight
from service.access.keys import KeyRing
from service.access.refusal import refuse
from service.access.roles import allowed_roles, needs_key
from service.access.visit import CURRENT_TENANT, Visit
from service.errors import AuthenticationError, ForbiddenError, RequestError, echo


class Authorization:
    """Pass a request on if its key has the right role; liveness and the page need no key.

    Args:
        app: the next ASGI application.
        keys: returns the current keys.
        answers_preflights: whether a middleware behind this one answers a browser's preflights,
            which have no key.

    """

    def __init__(
        self, app: ASGIApp, keys: Callable[[], KeyRing], *, answers_preflights: bool = True
    ) -> None:
        self._app = app
        self._keys = keys
        self._answers_preflights = answers_preflights

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        keys = self._keys()
        is_asking = self._answers_preflights and is_preflight(scope)
        if keys and needs_key(get_route_path(scope)) and not is_asking:
            try:
                _admit(scope, keys)
            except RequestError as error:
                await refuse(error, scope, receive, send)
                return
        # Always set: a pipelined request inherits the context of the request before it.
        CURRENT_TENANT.set(Visit.of(scope).tenant)
        await self._app(scope, receive, send)


def _admit(scope: Scope, keys: KeyRing) -> None:
    secret = _secret(scope)
    key = None if secret is None else keys.find(secret)
    if key is None:
        raise AuthenticationError(
            "send an API key that this server knows, as Authorization: Bearer KEY or as "
            "x-api-key: KEY",
            "authorization",
            "invalid_api_key",
        )
    Visit.of(scope).key = key
    path = get_route_path(scope)
    allowed = allowed_roles(scope.get("method", "GET"), path)
    if not allowed & key.roles:
        raise ForbiddenError(
            f"{echo(path)} needs a key of the role {' or '.join(sorted(allowed))}",
            "authorization",
            "role_missing",
        )


def _secret(scope: Scope) -> str | None:
    """Return the secret of the Authorization header, or else of x-api-key; None without one.

    A header that is sent twice is ignored.
    """
    for name, scheme in ((b"authorization", "bearer"), (b"x-api-key", "")):
        values = [value for header, value in scope["headers"] if header == name]
        if not values:
            continue
        if len(values) > 1:
            return None
        value: str = values[0].decode("latin-1")
        if not scheme:
            return value.strip()
        given, _, secret = value.partition(" ")
        return secret.strip() if given.lower() == scheme else None
    return None
