"""Servers that all test processes of a run share.

The first process that asks for a server starts it; the others read in the run's folder where it is;
the end of the run stops it. A test holds a server's turn while it runs: as many tests at once as
there are processes, or one that is marked ``alone``, because it reads what others would change.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_SH, flock
from pathlib import Path

from loadtests.measure.processes import living
from tests.integration.servers import STOP_SECONDS, OwnServer, Server
from tests.waiting import wait_for

_FOLDER = "SENSEFIELD_TEST_RUN"
"""Variable that names the run's folder to all its processes."""


_STARTED: list[OwnServer] = []
"""Kept to the end of this process: a server that is forgotten while it runs is a warning."""


def begin() -> None:
    """Make the run's folder, in the process that the others are started by."""
    os.environ[_FOLDER] = tempfile.mkdtemp(prefix="sensefield-tests-")


def run_folder() -> Path:
    """Return the run's folder."""
    return Path(os.environ[_FOLDER])


def leave() -> None:
    """Let go of the servers that this process started: the end of the run stops them."""
    for server in _STARTED:
        server.process.returncode = 0  # or Popen would warn that nobody waits for them


def end() -> None:
    """Stop all servers of the run and remove its folder."""
    folder = Path(os.environ.pop(_FOLDER))
    pids = [json.loads(file.read_text())["pid"] for file in folder.glob("*/server.json")]
    for pid in pids:
        _signal(pid, signal.SIGTERM)
    try:
        wait_for(lambda: not any(living(pid) for pid in pids), "servers to end", STOP_SECONDS)
    except TimeoutError:
        for pid in pids:
            _signal(pid, signal.SIGKILL)
    shutil.rmtree(folder)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number) if number == signal.SIGKILL else os.kill(pid, number)
    except ProcessLookupError:
        return


def shared(name: str, start: Callable[[Path], OwnServer]) -> Server:
    """Return the run's server of that name, which ``start(folder)`` starts the first time."""
    folder = run_folder() / name
    folder.mkdir(exist_ok=True)
    place = folder / "server.json"
    with (folder / "start.lock").open("w") as lock:
        flock(lock, LOCK_EX)
        if place.exists():
            found = json.loads(place.read_text())
            return Server(found["url"], found["pid"], folder / "server.log")
        server = start(folder)
        _STARTED.append(server)
        place.write_text(json.dumps({"url": server.url, "pid": server.pid}))
        return server


@contextmanager
def turn(names: set[str], alone: bool) -> Iterator[None]:
    """Hold the turns of servers, for this test alone or beside those of other processes."""
    if not names:
        yield
        return
    name, *others = sorted(names)
    folder = run_folder()
    # Behind the gate of one that waits to be alone nobody passes, or it could wait for ever.
    with (folder / f"{name}.gate").open("w") as gate, (folder / f"{name}.turn").open("w") as held:
        flock(gate, LOCK_EX)
        flock(held, LOCK_EX if alone else LOCK_SH)
        gate.close()
        with turn(set(others), alone):
            yield
