"""``/metrics`` on a port of its own, behind the same keys."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from typing import Any

import uvicorn
from fastapi import FastAPI
from prometheus_client import make_asgi_app
from starlette.applications import Starlette
from starlette.routing import Mount
from vllm.entrypoints.launchers.launcher import NoSignalServer
from vllm.v1.metrics.prometheus import get_prometheus_registry

from service.access.door import Door

PATH = "/metrics"


def remove_from(app: FastAPI) -> None:
    """Take ``/metrics`` off the main port."""
    app.router.routes[:] = [
        route for route in app.router.routes if getattr(route, "path", None) != PATH
    ]


def serve(port: int, args: Namespace) -> asyncio.Task[None]:
    """Serve the metrics where the main port listens, until the event loop ends."""
    # The exporter answers on whatever path; the door asks a key for this one.
    metrics = make_asgi_app(registry=get_prometheus_registry())
    app: Any = Door(Starlette(routes=[Mount(PATH, metrics)]))
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
