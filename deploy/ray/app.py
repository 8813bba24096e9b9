"""Sensefield on Ray Serve: replicas of ``sensefield serve``, and a door that retries."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import aiohttp
from ray import serve
from ray.exceptions import RayError
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import StreamingResponse

Headers = list[tuple[str, str]]

_OF_ONE_HOP = {"connection", "host", "keep-alive", "transfer-encoding", "upgrade"}
_ATTEMPTS = 6
_BACKOFF_SECONDS = 0.1
"""Wait before the second attempt; it doubles before each further one."""
_SET_DEATH_SIGNAL = 1  # Linux's PR_SET_PDEATHSIG


@serve.deployment
class Replica:
    """A server in a process of its own on a free port; replica and server end together.

    Args:
        command: starts the server, as in ``["sensefield", "serve", "MODEL"]``.

    """

    def __init__(self, command: Sequence[str]) -> None:
        port = _free_port()
        self._url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            preexec_fn=_end_with_parent,  # noqa: PLW1509 - takes no lock, which another could hold
        )
        while not self._is_healthy():
            if self._process.poll() is not None:
                raise RuntimeError(f"{' '.join(command)} ended with {self._process.returncode}")
            time.sleep(0.5)
        threading.Thread(target=self._end_with_server, daemon=True).start()
        self._session: aiohttp.ClientSession | None = None

    def _is_healthy(self) -> bool:
        try:
            with urlopen(f"{self._url}/health", timeout=5):
                return True
        except (URLError, TimeoutError):
            return False

    def _end_with_server(self) -> None:
        # Ray then starts another replica, and sends no more requests to this one.
        os._exit(self._process.wait())

    def __del__(self) -> None:
        """Stop the server with SIGTERM, once Ray has drained the replica."""
        self._process.terminate()
        self._process.wait()

    async def check_health(self) -> None:
        """Fail if the engine has died, so that Ray replaces the replica."""
        if not await asyncio.to_thread(self._is_healthy):
            raise RuntimeError("the server is not healthy")

    async def forward(
        self, method: str, path: str, headers: Headers, body: bytes
    ) -> AsyncGenerator[Any, None]:
        """Yield status and headers of the server's answer, then the chunks of its body."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                auto_decompress=False,
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None),
            )
        async with self._session.request(
            method, self._url + path, headers=headers, data=body, allow_redirects=False
        ) as answer:
            yield answer.status, _end_to_end(answer.headers.items())
            async for piece in answer.content.iter_any():
                yield piece


@serve.deployment(max_ongoing_requests=1000)
class Door:
    """Sends requests to replicas: a session's to one replica, and to another one if it ends.

    A server's head is sent with the first event of a stream. Until then the client has received
    nothing, and the request can be sent again.
    """

    def __init__(self, replicas: DeploymentHandle) -> None:
        self._replicas = replicas.options(stream=True)

    async def __call__(self, request: Request) -> StreamingResponse:
        """Pass on a replica's answer."""
        replicas = self._replicas
        if session := request.headers.get("x-session-id"):
            replicas = replicas.options(session_id=session)
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        headers = _end_to_end(request.headers.items())
        body = await request.body()
        for attempt in range(_ATTEMPTS):
            pieces = replicas.forward.remote(request.method, path, headers, body)
            try:
                status, replied = await anext(pieces)
            except RayError:
                if attempt == _ATTEMPTS - 1:
                    raise
                await asyncio.sleep(_BACKOFF_SECONDS * 2**attempt)
            else:
                break
        answer = StreamingResponse(pieces, status)
        answer.raw_headers = [(name.lower().encode(), value.encode()) for name, value in replied]
        return answer


def build(arguments: dict[str, Any]) -> Any:
    """Return the application: ``command`` starts a replica's server."""
    replicas = Replica.bind(arguments["command"])  # type: ignore[attr-defined] # of the decorator
    return Door.bind(replicas)  # type: ignore[attr-defined] # likewise


def _end_to_end(headers: Any) -> Headers:
    return [(name, value) for name, value in headers if name.lower() not in _OF_ONE_HOP]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _end_with_parent() -> None:
    """Make the kernel end this process once the replica's process has ended for any reason."""
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
