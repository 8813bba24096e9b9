"""Servers are stopped with everything they started."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from loadtests.measure import servers
from loadtests.measure.processes import living, processor_seconds, resident_bytes
from loadtests.measure.servers import STOCK, Server, ServerError, running
from tests.waiting import wait_for

# Says it runs, starts a child in its group, and neither ends when asked to.
STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.fork()
time.sleep(600)
"""


def start(script: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", script], start_new_session=True)


def wait_for_members(group: int, count: int) -> None:
    wait_for(lambda: len(living(group)) == count, f"{count} processes in group {group}")


def test_a_group_has_its_children_their_memory_and_their_time() -> None:
    process = start(STUBBORN)
    try:
        wait_for_members(process.pid, 2)
        sizes = resident_bytes(process.pid)
        assert sizes.keys() == {"API server", "helpers"}
        assert min(sizes.values()) > 1 << 20
        used = processor_seconds(process.pid)
        assert used.keys() == sizes.keys()
        assert 0 <= used["API server"] < 60
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    wait_for_members(process.pid, 0)


@pytest.fixture
def stubborn_servers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let servers be stubborn processes; return the groups of those that were started."""
    groups: list[int] = []

    def begin(self: Server, name: str, *_: object, **__: object) -> None:
        self.name = name
        self._process = start(STUBBORN)
        groups.append(self.group)

    async def ready(self: Server, _: aiohttp.ClientSession) -> None:
        wait_for_members(self.group, 2)

    monkeypatch.setattr(Server, "__init__", begin)
    monkeypatch.setattr(Server, "ready", ready)
    monkeypatch.setattr(servers, "STOP_SECONDS", 0.3)
    return groups


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
async def test_every_process_is_ended_whatever_happens(
    stubborn_servers: list[int], error: type[BaseException]
) -> None:
    async def fail() -> None:
        async with running(("one", "other"), "model", ()):
            assert len(stubborn_servers) == 2
            raise error

    with pytest.raises(error):
        await fail()
    for group in stubborn_servers:
        wait_for_members(group, 0)


async def test_a_server_that_ends_at_start_shows_its_last_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(servers, "SCRATCH", tmp_path)
    monkeypatch.setitem(servers._COMMANDS, STOCK, ("json.tool", "--no-such-flag"))
    with pytest.raises(ServerError, match=r"the stock server ended at start(.|\n)*usage"):
        async with running((STOCK,), "model", ()):
            pass
