"""A server that is replaced when it has died, and the table of what it was put through."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import safetensors.numpy

from tests.faults.report import Report
from tests.faults.supervisor import Supervisor
from tests.integration.servers import REPOSITORY, OwnServer
from tests.waiting import PATIENCE_SECONDS

STORE_SIZE = "8m"
LAYERS = (10, 20)


@pytest.fixture(scope="package")
def report(full: bool) -> Iterator[Report]:
    """The table, written at the end of a long form."""
    told = "`make faults` does all this to real servers, and wrote this table."
    table = Report("Faults, and what the server does", told, "fault")
    yield table
    if full:
        table.write(REPOSITORY / "docs" / "faults" / "faults.md")


@pytest.fixture(scope="package")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for a server, with a small disk of its own for the vectors where that can be."""
    folder = tmp_path_factory.mktemp("faults")
    vectors = folder / "vectors"
    vectors.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={STORE_SIZE}"]
    mounted = mount(vectors, *options)
    yield folder
    if mounted:
        subprocess.run(["umount", vectors], check=True)


@pytest.fixture(scope="package")
def vector() -> bytes:
    """A vector that is stored before the first fault, and is to outlive all of them."""
    rng = np.random.default_rng(7)
    layers = {f"layer.{at}": rng.standard_normal(576).astype(np.float32) for at in LAYERS}
    return safetensors.numpy.save(layers)


@pytest.fixture(scope="package")
def supervisor(store: Path, vector: bytes) -> Iterator[Supervisor]:
    """One server for all faults, started again only after those that end it."""
    with Supervisor(store) as running:
        with httpx.Client(base_url=running.server().url, timeout=PATIENCE_SECONDS) as client:
            client.put("/v1/vectors/kept", content=vector).raise_for_status()
        yield running


@pytest.fixture
def server(supervisor: Supervisor) -> OwnServer:
    """The server; its store has had the vector since the first one."""
    return supervisor.server()


def mount(folder: Path, *options: str) -> bool:
    """Mount something at a folder; say whether this machine let us."""
    command = ["mount", *options, "none", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
