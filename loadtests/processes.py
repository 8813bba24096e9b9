"""The processes of a server's process group, as Linux shows them in /proc."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
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


def cpu_seconds(group: int) -> float:
    """Return the processor time that a group's living processes have used."""
    used = 0
    for process in living(group):
        try:
            fields = (Path("/proc") / str(process) / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it ended while we looked
            continue
        used += int(fields[11]) + int(fields[12])  # user and system, in ticks
    return used / _TICKS


def resident_bytes(group: int) -> dict[str, int]:
    """Return the resident memory of a server's processes, by what they are."""
    sizes: dict[str, int] = {}
    for process in living(group):
        folder = Path("/proc") / str(process)
        try:
            title = (folder / "cmdline").read_bytes().partition(b"\0")[0].decode()
            pages = int((folder / "statm").read_text().split()[1])
        except (OSError, IndexError):  # it ended while we looked
            continue
        name = "API server" if process == group else _name(title)
        sizes[name] = sizes.get(name, 0) + pages * _PAGE
    return sizes


def open_files(group: int) -> int:
    """Return the number of file descriptors that a group's processes hold."""
    count = 0
    for process in living(group):
        with suppress(OSError):  # it ended while we looked
            count += len(os.listdir(f"/proc/{process}/fd"))
    return count


def _name(title: str) -> str:
    """Return the name that vLLM gives a process it starts: ``VLLM::EngineCore``, for one."""
    return title.removeprefix("VLLM::").strip() if title.startswith("VLLM::") else "helpers"
