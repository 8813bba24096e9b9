"""The process tree of a server: no process outlives its parent, API processes watch the engines."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
from multiprocessing import connection
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_TITLE = b"VLLM::EngineCore"
"""The title of vLLM's engine processes."""


def end_with_parent() -> None:
    """End this process as soon as its parent has, if it is a child of the server's."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        connection.wait([parent.sentinel])
        # Not sys.exit, which would wait for the engine's cleanup.
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()


def die_with_parent() -> None:
    """Make the kernel kill this process, a fork without threads, once its parent has died.

    Raises:
        OSError: the kernel refuses.

    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def engines_beside() -> list[int]:
    """Return the engines that this process's parent started, as with several API processes.

    vLLM does not notify such an API process when an engine is killed.
    """
    if multiprocessing.parent_process() is None:
        return []
    return [
        int(process.name)
        for process in Path("/proc").glob("[0-9]*")
        if _parent_of(process) == os.getppid() and _title_of(process).startswith(_TITLE)
    ]


def is_alive(process: int) -> bool:
    """Say whether there is such a process."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _parent_of(process: Path) -> int | None:
    try:
        # The second field is a name in parentheses, which may hold anything.
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # it has ended
        return None


def _title_of(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:  # it has ended
        return b""
