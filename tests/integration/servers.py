"""Real servers for the tests: ``sensefield serve`` in a process of its own."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from loadtests.measure.servers import free_port
from service.embedded_model import embedded_model_dir
from tests.waiting import wait_for

START_SECONDS = 900
"""Longest wait for a server: two that start at once on a slow machine take minutes."""
STOP_SECONDS = 60
MODEL = "smollm2-135m-instruct"
REPOSITORY = Path(__file__).parents[2]
TRITON = Path(sys.prefix) / "triton-interpreter"
"""Where ``make`` installs Triton, apart, because a plain CPU engine must not see it."""

ON_GPU = Path("/proc/driver/nvidia").exists()
V2_ENVIRONMENT = {"VLLM_USE_V2_MODEL_RUNNER": "1"} | (
    {}
    if ON_GPU
    else {
        "TRITON_INTERPRET": "1",
        "VLLM_CPU_CI_ENV": "1",
        "PYTHONPATH": f"{REPOSITORY / 'tests' / 'triton_interpreter'}:{TRITON}",
    }
)
KV_CACHE = ("--kv-cache-memory-bytes", "400M")
"""8,900 tokens: six servers and more run at once, and in time each touches all of its cache."""
SHARED_GPU = ("--gpu-memory-utilization", "0.2") if ON_GPU else ()
"""Servers of several fixtures run at once."""
MORE_FLAGS = shlex.split(os.environ.get("SENSEFIELD_TEST_FLAGS", ""))
"""Of each server, after its own: `make test-gpu` runs the same tests with other ones."""


@dataclass(frozen=True)
class Server:
    """A server that answers, which another process may have started."""

    url: str
    pid: int
    log: Path


@dataclass(frozen=True)
class OwnServer(Server):
    """A server that this process started."""

    process: subprocess.Popen[bytes]


@contextmanager
def serving(
    folder: Path,
    flags: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    model: Path | None = None,
) -> Iterator[OwnServer]:
    """Serve a model, by default the embedded one, in float32 until the context ends."""
    server = start(folder, flags, environment, model)
    try:
        yield server
    finally:
        stop(server)


@contextmanager
def serving_embedded(folder: Path) -> Iterator[OwnServer]:
    """Serve as `make serve` does, without naming a model."""
    server = _start(folder, KV_CACHE, {})
    try:
        yield server
    finally:
        stop(server)


def start(
    folder: Path,
    flags: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    model: Path | None = None,
) -> OwnServer:
    """Start what :func:`serving` serves; :func:`stop` ends it."""
    named = (str(model or embedded_model_dir()), "--served-model-name", MODEL, "--enforce-eager")
    flags = (*named, "--dtype", "float32", *KV_CACHE, *SHARED_GPU, *flags, *MORE_FLAGS)
    return _start(folder, flags, {**UNBOUND, **(environment or {})})


UNBOUND = {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
"""By itself vLLM binds each server's worker to the first core, where all would wait for one.

It also starts the worker anew, for OpenMP's sake, and a worker in one thread can be forked."""


def _start(folder: Path, flags: Sequence[str], environment: Mapping[str, str]) -> OwnServer:
    port = free_port()
    command = [
        *(str(Path(sys.executable).parent / "sensefield"), "serve", *flags),
        *("--port", str(port), "--host", "127.0.0.1", "--vectors-dir", str(folder / "vectors")),
    ]
    variables = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", **environment}
    return launch(command, port, folder / "server.log", variables)


def launch(
    command: Sequence[str], port: int, log: Path, environment: Mapping[str, str]
) -> OwnServer:
    """Run a command that serves on a port, in a group of its own, and wait until it answers."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    server = OwnServer(f"http://127.0.0.1:{port}", process.pid, log, process)
    try:
        wait_until_healthy(server)
    except BaseException:
        stop(server)
        raise
    return server


def wait_until_healthy(server: OwnServer) -> None:
    """Return when the server answers; RuntimeError with its log if it does not."""
    # One client for all looks: making one takes longer than a look.
    with httpx.Client(timeout=5) as client:

        def answers() -> bool:
            if server.process.poll() is not None:
                raise TimeoutError("it has ended")
            try:
                return client.get(f"{server.url}/health").is_success
            except httpx.TransportError:
                return False

        try:
            wait_for(answers, f"no answer in {START_SECONDS} s", START_SECONDS)
        except TimeoutError as error:
            log = server.log.read_text()[-4000:]
            raise RuntimeError(f"the server did not start, {error}:\n{log}") from error


_ENDING: list[OwnServer] = []


def stop(server: OwnServer) -> None:
    """Tell the server to end, as an operator does; the next test need not wait until it has."""
    if server.process.poll() is None:
        server.process.send_signal(signal.SIGTERM)
    _ENDING.append(server)


def wait_until_ended() -> None:
    """Wait until all servers of this process have ended, by force if that takes too long."""
    while _ENDING:
        server = _ENDING.pop()
        try:
            server.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.process.wait()
