"""``/metrics`` on a port of its own, behind the same keys."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from typing import Any

import uvicorn
from fastapi import FastAPI
from prometheus_client import make_asgi_app
from starlette._utils import get_route_path
from starlette.types import ASGIApp, Receive, Scope, Send
from vllm.entrypoints.launchers.launcher import NoSignalServer
from vllm.v1.metrics.prometheus import get_prometheus_registry

from service.access.door import Door
from service.access.refusal import refuse
from service.errors import NotFoundError

PATH = "/metrics"


def remove_from(app: FastAPI) -> None:
    """Take ``/metrics`` off the main port."""
    app.router.routes[:] = [
        route for route in app.router.routes if getattr(route, "path", None) != PATH
    ]


def only_here(exporter: ASGIApp) -> ASGIApp:
    """Return an exporter that answers on ``/metrics`` only, the path that needs a key."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and get_route_path(scope) == PATH:
            await exporter(scope, receive, send)
        else:
            await refuse(NotFoundError(f"only {PATH} is here", "path"), scope, receive, send)

    return answer


def serve(port: int, args: Namespace) -> asyncio.Task[None]:
    """Serve the metrics where the main port listens, until the event loop ends."""
    exporter = only_here(make_asgi_app(registry=get_prometheus_registry()))
    app: Any = Door(exporter, answers_preflights=False)
    config = uvicorn.Config(
        app,
        host=args.host or "0.0.0.0",
        port=port,
        lifespan="off",
        log_level=args.uvicorn_log_level,
        access_log=False,
        ssl_keyfile=args.ssl_keyfile,
        ssl_certfile=args.ssl_certfile,
        ssl_ca_certs=args.ssl_ca_certs,
        ssl_cert_reqs=args.ssl_cert_reqs,
    )
    return asyncio.create_task(NoSignalServer(config).serve())
