"""The store under processes that write at once, and under one that is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

from service.vectors.store import StoredName, VectorStore
from tests.service.vectors.storing import all_names, files

CHILD = """
import sys
from tests.service.vectors.storing import ONE, TWO, any_entry, name
from service.vectors.store import VectorStore
from service.errors import NotFoundError
store = VectorStore(sys.argv[1])
me = sys.argv[2]
print("ready", flush=True)
"""
FOREVER = """
big = {ONE: b"1" * (1 << 22), TWO: b"2" * (1 << 22)}
while True:
    for sha256, data in big.items():
        store.write(name("a", sha256), data, any_entry)
"""
CROWD = """
for at in range(60):
    sha256 = str(at % 3) * 64
    store.write(name(f"n{at % 5}", sha256), sha256.encode(), any_entry)
    if at % 4 == 3:
        try:
            store.delete(f"n{at % 5}", any_entry)
        except NotFoundError:
            pass
store.write(name(f"last-{me}"), ONE.encode(), any_entry)
"""


def child(folder: Path, code: str, me: str = "x") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(CHILD + code), str(folder), me]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_kill_9_in_the_middle_of_writes(tmp_path: Path) -> None:
    for _ in range(5):
        process = child(tmp_path, FOREVER)
        while not list(tmp_path.rglob(".*[!k]")):  # an unfinished file, not the lock
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
        store = VectorStore(tmp_path)
        for entry in all_names(store):
            assert isinstance(entry, StoredName)
            assert store.read(entry.sha256) == entry.sha256[:1].encode() * (1 << 22)
        store.sweep()
        named = {
            f"contents/{e.sha256}.safetensors"
            for e in all_names(store)
            if isinstance(e, StoredName)
        }
        assert files(tmp_path) == named | ({"names/a.json"} if named else set())


def test_two_processes_write_and_delete_at_once(tmp_path: Path) -> None:
    children = [child(tmp_path, CROWD, me) for me in "ab"]
    store = VectorStore(tmp_path)
    while any(process.poll() is None for process in children):
        for entry in store.find(store.list_names()).values():
            assert isinstance(entry, StoredName)
    assert [process.wait() for process in children] == [0, 0]
    for process in children:
        process.communicate()
    entries = all_names(store)
    assert {"last-a", "last-b"} <= {entry.name for entry in entries}
    for entry in entries:
        assert isinstance(entry, StoredName)
        assert store.read(entry.sha256) == entry.sha256.encode()
