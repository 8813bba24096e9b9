"""Nobody gets past without a key that may: judged on the path that the router will see."""

from __future__ import annotations

from collections.abc import Callable

from starlette._utils import get_route_path
from starlette.types import ASGIApp, Receive, Scope, Send

from service.access.keys import KeyRing
from service.access.refusal import refuse
from service.access.roles import allowed_roles, needs_key
from service.access.visit import TENANT, Visit
from service.errors import AuthenticationError, ForbiddenError, RequestError, echo


class Authorization:
    """Lets a request on with a key of the right role; liveness and the page without one."""

    def __init__(self, app: ASGIApp, keys: Callable[[], KeyRing]) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        keys = self._keys()
        if keys and needs_key(get_route_path(scope)):
            try:
                _admit(scope, keys)
            except RequestError as error:
                await refuse(error, scope, receive, send)
                return
        # Whatever it was: a request that was pipelined behind another began in its context.
        TENANT.set(Visit.of(scope).tenant)
        await self._app(scope, receive, send)


def _admit(scope: Scope, keys: KeyRing) -> None:
    secret = _bearer(scope)
    key = None if secret is None else keys.find(secret)
    if key is None:
        raise AuthenticationError(
            "send an API key that this server knows, as Authorization: Bearer KEY",
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


def _bearer(scope: Scope) -> str | None:
    """Return the secret of an Authorization header; None without one, or with several."""
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(values) != 1:
        return None
    scheme, _, secret = values[0].decode("latin-1").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else None
