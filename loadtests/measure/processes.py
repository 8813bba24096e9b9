"""The processes of a server's process group, as Linux shows them in /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_ALL_THREADS = 2
"""CPUCLOCK_SCHED: what the scheduler counts, user and system."""
_PAGE = os.sysconf("SC_PAGE_SIZE")


def living(group: int) -> list[int]:
    """Return the processes of a group that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The second field is a name in parentheses, which may hold anything.
            state, _, process_group = stat.read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):  # it ended while we looked
            continue
        if int(process_group) == group and state not in "ZX":
            found.append(int(stat.parent.name))
    return found


def processor_seconds(group: int) -> dict[str, float]:
    """Return the processor time that a server's living processes have used, by what they are."""
    used: dict[str, float] = {}
    for name, folder in _named(group):
        with suppress(OSError):  # it ended while we looked
            used[name] = used.get(name, 0.0) + processor_time(int(folder.name))
    return used


def processor_time(process: int) -> float:
    """Return the processor seconds of all of a process's threads, to the nanosecond.

    It uses Linux's clock of each process (clock_getcpuclockid(3)), because the times in /proc have
    a resolution of 10 ms, in which an API server handles a few tokens.

    Raises:
        OSError: the process has ended.

    """
    return time.clock_gettime((~process << 3) | _ALL_THREADS)


def resident_bytes(group: int) -> dict[str, int]:
    """Return the resident memory of a server's processes, by what they are."""
    sizes: dict[str, int] = {}
    for name, folder in _named(group):
        with suppress(OSError, IndexError):  # it ended while we looked
            pages = int((folder / "statm").read_text().split()[1])
            sizes[name] = sizes.get(name, 0) + pages * _PAGE
    return sizes


def open_files(group: int) -> int:
    """Return the number of file descriptors that a group's processes hold."""
    count = 0
    for process in living(group):
        with suppress(OSError):  # it ended while we looked
            count += len(os.listdir(f"/proc/{process}/fd"))
    return count


def _named(group: int) -> Iterator[tuple[str, Path]]:
    """Yield what each of a group's processes is, and its folder in /proc."""
    for process in living(group):
        folder = Path("/proc") / str(process)
        with suppress(OSError):  # it ended while we looked
            title = (folder / "cmdline").read_bytes().partition(b"\0")[0].decode()
            yield "API server" if process == group else _name(title), folder


def _name(title: str) -> str:
    """Return the name that vLLM gives a process it starts: ``VLLM::EngineCore``, for one."""
    return title.removeprefix("VLLM::").strip() if title.startswith("VLLM::") else "helpers"
