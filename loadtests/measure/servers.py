"""Starting and stopping the two servers that are compared."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp

from loadtests.measure.processes import living, processor_seconds

ROOT = Path(__file__).parents[2]
SCRATCH = ROOT / ".bench"
"""Logs of the servers and the vectors of Sensefield; `make clean` removes it."""
SENSEFIELD = "sensefield"
STOCK = "stock"
MODEL_NAME = "bench"
START_SECONDS = 600
STOP_SECONDS = 40
SETTLE_SECONDS = 60
_POLL_SECONDS = 0.1
_LOOK_SECONDS = 0.5
_IDLE_SHARE = 0.1
"""Share of one core below which a server is idle, over one poll; ticks are 10 ms."""

_COMMANDS = {
    SENSEFIELD: ("service.cli", "serve"),
    STOCK: ("vllm.entrypoints.openai.api_server", "--model"),
}
# Stock vLLM refuses more than 20 logprobs by default; Sensefield has no such cap.
_OWN_FLAGS = {SENSEFIELD: (), STOCK: ("--max-logprobs", "-1")}
# VLLM_PLUGINS is an allow-list: this one keeps Sensefield out of the stock server.
_OWN_ENVIRONMENT = {
    SENSEFIELD: {"SENSEFIELD_VECTORS_DIR": str(SCRATCH / "vectors")},
    STOCK: {"VLLM_PLUGINS": "none"},
}


class ServerError(Exception):
    """A server did not start, or died."""


class Server:
    """A running server, the leader of a process group of its own."""

    def __init__(
        self, name: str, model: str, engine_flags: Sequence[str], *, settle: bool = True
    ) -> None:
        port = free_port()
        self.name = name
        self._settle = settle
        self.url = f"http://127.0.0.1:{port}"
        SCRATCH.mkdir(exist_ok=True)
        self._log = SCRATCH / f"{name}.log"
        address = ("--host", "127.0.0.1", "--port", str(port), "--served-model-name", MODEL_NAME)
        command = [sys.executable, "-m", *_COMMANDS[name], model, *address]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, *_OWN_FLAGS[name], *engine_flags],
                cwd=ROOT,
                env=_environment(name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def group(self) -> int:
        """The id of its process group."""
        return self._process.pid

    async def ready(self, session: aiohttp.ClientSession) -> None:
        """Wait until it answers.

        Raises:
            ServerError: it ended, or took too long.

        """
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise ServerError(f"the {self.name} server ended at start:\n{self.log_tail()}")
            with suppress(aiohttp.ClientError):
                async with session.get(f"{self.url}/health") as answer:
                    if answer.ok:
                        return
            await asyncio.sleep(_POLL_SECONDS)
        raise ServerError(f"the {self.name} server was not ready after {START_SECONDS} s")

    async def settled(self) -> None:
        """Wait until it is idle: vLLM's workers spin for a second after their last request.

        Raises:
            ServerError: it stays busy without requests.

        """
        if not self._settle:
            return
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline:
            before = sum(processor_seconds(self.group).values())
            await asyncio.sleep(_LOOK_SECONDS)
            used = sum(processor_seconds(self.group).values()) - before
            if used <= _IDLE_SHARE * _LOOK_SECONDS:
                return
        raise ServerError(f"the {self.name} server was not idle after {SETTLE_SECONDS} s")

    def log_tail(self) -> str:
        """Return the last lines that it wrote."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-25:])

    def terminate(self) -> None:
        """Ask it to stop; its first process stops the others."""
        self._process.terminate()

    def kill(self) -> None:
        """End all of its processes at once."""
        with suppress(ProcessLookupError):
            os.killpg(self.group, signal.SIGKILL)
        self._process.wait()

    def has_ended(self) -> bool:
        """Say whether none of its processes is left."""
        self._process.poll()  # collects the leader
        return not living(self.group)


@asynccontextmanager
async def running(
    names: Iterable[str], model: str, engine_flags: Sequence[str], *, settle: bool = True
) -> AsyncIterator[dict[str, Server]]:
    """Start servers, wait until all are ready, and always stop them at the end.

    ``settle``: whether a server must be idle before another one gets requests, as on a machine
    with few cores.
    """
    servers: dict[str, Server] = {}
    try:
        for name in names:
            servers[name] = Server(name, model, engine_flags, settle=settle)
        async with aiohttp.ClientSession() as session:
            await asyncio.gather(*(server.ready(session) for server in servers.values()))
        yield servers
    finally:
        _stop(list(servers.values()))


def _stop(servers: list[Server]) -> None:
    """End all processes of all servers: asked first, then forced, also if interrupted here."""
    try:
        for server in servers:
            server.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        while not all(server.has_ended() for server in servers) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
    finally:
        for server in servers:
            server.kill()


def _environment(name: str) -> dict[str, str]:
    defaults = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    return defaults | os.environ | _OWN_ENVIRONMENT[name]


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
