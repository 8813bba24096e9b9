"""What keeps a server running: a new one on the same store where the last has ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from loadtests.measure.processes import living
from tests.integration.servers import REPOSITORY, OwnServer, serving

STALL_SECONDS = 10
SLOTS = 16
FLAGS = (
    *("--max-model-len", "512", "--max-num-seqs", str(SLOTS), "--block-size", "32"),
    # Few blocks, so that running requests are preempted; small steps, so that none seems to hang.
    *("--num-gpu-blocks-override", "32", "--max-num-batched-tokens", "128"),
    *("--stall-timeout-seconds", str(STALL_SECONDS), "--shutdown-timeout", "60"),
    *("--logits-processors", "tests.faults.raising:Raising"),
)
ENVIRONMENT = {"PYTHONPATH": str(REPOSITORY)}


class Supervisor:
    """Starts servers on one store, never two at a time."""

    def __init__(
        self,
        folder: Path,
        flags: Sequence[str] = FLAGS,
        environment: Mapping[str, str] = ENVIRONMENT,
    ) -> None:
        self._folder = folder
        self._flags = flags
        self._environment = environment
        self._running = ExitStack()
        self._server: OwnServer | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._running.close()

    def server(self) -> OwnServer:
        """Return the server, after starting one if none runs."""
        if self._server is None or self._server.process.poll() is not None:
            self._running.close()
            started = serving(self._folder, self._flags, self._environment)
            self._server = self._running.enter_context(started)
        return self._server


def process_of(server: OwnServer, kind: str) -> int:
    """Return the id of the ``EngineCore`` or the ``Worker`` of a server."""
    (found,) = (
        process
        for process in living(server.process.pid)
        if Path(f"/proc/{process}/cmdline").read_bytes().startswith(f"VLLM::{kind}".encode())
    )
    return found
