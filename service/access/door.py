"""The door: the stack of ASGI middlewares that every request passes.

``sensefield serve`` gives it to vLLM as the outermost middleware, so that it stands before
all of vLLM's routes too. Each middleware is plain ASGI and does not parse a stream's events.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from service.access.admission import Admission
from service.access.audit import Audit, audit_logger
from service.access.authorization import Authorization
from service.access.deadline import Deadline
from service.access.key_file import WatchedKeys
from service.access.outgoing import Outgoing
from service.settings import settings


class Door:
    """The middlewares, in the order in which a request passes them.

    Args:
        app: the ASGI application behind the door.
        answers_preflights: whether that application answers CORS preflights.

    """

    def __init__(self, app: ASGIApp, *, answers_preflights: bool = True) -> None:
        own = settings()
        self._inside = app
        admitted = Deadline(Admission(app, own), own)
        keys = WatchedKeys(own.api_keys, own.api_keys_file)
        known = Authorization(admitted, keys, answers_preflights=answers_preflights)
        self._first: ASGIApp = Audit(Outgoing(known), audit_logger())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass requests through the stack; lifespan events go straight to the application."""
        if scope["type"] in ("http", "websocket"):
            await self._first(scope, receive, send)
        else:
            await self._inside(scope, receive, send)
