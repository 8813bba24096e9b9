"""Two replicas on one store of vectors, behind vLLM's router and behind Ray Serve."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import yaml

from loadtests.measure.servers import free_port
from service.embedded_model import embedded_model_dir
from tests.integration.servers import (
    MODEL,
    REPOSITORY,
    START_SECONDS,
    UNBOUND,
    OwnServer,
    serving,
)
from tests.waiting import wait_for

FLAGS = ("--max-model-len", "512", "--max-num-seqs", "2", "--block-size", "32")
RAY = REPOSITORY / "deploy" / "ray"


@dataclass(frozen=True)
class Front:
    """What clients ask, and the servers behind it, by their own URLs."""

    url: str
    replicas: tuple[str, str]
    kill_one: Callable[[], None]
    """Ends one replica without giving it a chance to say anything."""


@contextmanager
def behind_router(folder: Path) -> Iterator[Front]:
    """Two servers, and vLLM's router as deploy/router/README.md starts it."""
    with ExitStack() as running:

        def start(name: str) -> OwnServer:
            (folder / name).mkdir()
            (folder / name / "vectors").symlink_to(folder / "vectors")
            return running.enter_context(serving(folder / name, FLAGS))

        (folder / "vectors").mkdir()
        with ThreadPoolExecutor() as pool:
            first, second = pool.map(start, ("first", "second"))
        port, metrics = free_port(), free_port()
        command = (
            *(sys.executable, "-m", "vllm_router.launch_router", "--port", str(port)),
            *("--prometheus-port", str(metrics), "--policy", "consistent_hash"),
            *("--worker-urls", first.url, second.url),
        )
        url = f"http://127.0.0.1:{port}"
        environment = {"PYTHONPATH": _apart("router")}
        running.enter_context(_process(command, folder / "router.log", url, environment))

        def kill_one() -> None:
            os.killpg(first.process.pid, signal.SIGKILL)

        yield Front(url, (first.url, second.url), kill_one)


@contextmanager
def behind_ray(folder: Path) -> Iterator[Front]:
    """A cluster of this machine, with deploy/ray/serve.yaml changed to what it can carry."""
    port = free_port()
    config = yaml.safe_load((RAY / "serve.yaml").read_text())
    config["http_options"] = {"host": "127.0.0.1", "port": port}
    (application,) = config["applications"]
    model = (str(embedded_model_dir()), "--served-model-name", MODEL, "--enforce-eager")
    sensefield = str(Path(sys.executable).parent / "sensefield")
    stored = ("--vectors-dir", str(folder / "vectors"), "--dtype", "float32")
    application["args"]["command"] = [sensefield, "serve", *model, *stored, *FLAGS]
    door, replica = application["deployments"]
    door |= {"num_replicas": 1, "ray_actor_options": {"num_cpus": 0}}
    replica["autoscaling_config"]["min_replicas"] = 2
    replica["ray_actor_options"] = {"num_cpus": 0}
    (folder / "serve.yaml").write_text(yaml.safe_dump(config))
    command = (
        *(sys.executable, "-m", "ray.serve.scripts", "run", "--address", "local"),
        str(folder / "serve.yaml"),
    )
    environment = {
        "PYTHONPATH": f"{RAY}:{_apart('ray')}",
        **UNBOUND,
        "HF_HUB_OFFLINE": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    url = f"http://127.0.0.1:{port}"
    with _process(command, folder / "ray.log", url, environment) as process:
        # Ray answers as soon as one of the two does.
        wait_for(lambda: sum(map(_answers, _servers_of(process.pid).values())) == 2)
        servers = _servers_of(process.pid)
        server, *_ = servers
        first, second = servers.values()

        def kill_one() -> None:
            psutil.Process(psutil.Process(server).ppid()).kill()
            wait_for(lambda: server not in _servers_of(process.pid))

        yield Front(url, (first, second), kill_one)


@contextmanager
def _process(
    command: Sequence[str], log: Path, url: str, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a front until the context ends, from when it answers."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    try:
        wait_for(lambda: process.poll() is not None or _answers(url), url, START_SECONDS)
        assert process.poll() is None, log.read_text()[-4000:]
        yield process
    finally:
        for each in _session(process.pid):
            with suppress(psutil.NoSuchProcess):
                each.kill()
        process.wait()


def _apart(package: str) -> str:
    """Return the folder of a package that ``make`` installs apart."""
    folder = Path(sys.prefix) / package
    assert folder.is_dir(), f"{folder} is missing: run the tests with `make test`"
    return str(folder)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).is_success
    except httpx.TransportError:
        return False


def _servers_of(leader: int) -> dict[int, str]:
    """Return the URLs of a session's servers by their processes, as their command lines say."""
    found = {}
    for process in _session(leader):
        with suppress(psutil.NoSuchProcess):
            words = process.cmdline()
            if "serve" in words and "--port" in words:
                found[process.pid] = f"http://127.0.0.1:{words[words.index('--port') + 1]}"
    return found


def _session(leader: int) -> list[psutil.Process]:
    """Return the processes that a session's first one has started, and itself."""
    found = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError):
            if os.getsid(process.pid) == leader:
                found.append(process)
    return found
