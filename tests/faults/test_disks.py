"""A store of vectors on a disk that is full, or that cannot be written."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from tests.faults.conftest import mount
from tests.faults.report import Report
from tests.faults.streams import STEERED, ask, client_of, seconds
from tests.integration.servers import Server
from tests.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.xdist_group("faults")


async def test_a_full_disk_refuses_vectors_and_serves_on(
    server: Server, store: Path, vector: bytes, report: Report
) -> None:
    vectors = store / "vectors"
    with report.row("the disk of the vector store is full", "507; all else goes on") as row:
        if not os.path.ismount(vectors):
            pytest.skip("a small disk takes a privilege to mount, which is missing here")
        ballast = vectors / "ballast"
        async with client_of(server) as client:
            fill(ballast)
            try:
                other = safetensors.numpy.save({"layer.3": np.ones(576, np.float32)})
                refused = await client.put("/v1/vectors/late", content=other)
                assert refused.status_code == 507, refused.text
                await ask(client, logit_control=STEERED)
                assert (await client.get("/ready")).is_success
            finally:
                ballast.unlink()
            stored = await client.put("/v1/vectors/late", content=other)
            assert stored.status_code == 201, stored.text
            assert (await client.delete("/v1/vectors/late")).status_code == 204
        row.observed = "507; steering went on; stored once there was room"


def fill(file: Path) -> None:
    """Write until the disk is full."""
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as ballast:
        while True:
            ballast.write(bytes(4096))


@pytest.mark.usefixtures("only_full")
def test_a_store_that_cannot_be_written_is_told_before_the_model_is_loaded(
    tmp_path: Path, report: Report
) -> None:
    with report.row(
        "a read-only store at the start", "exit 1 before a model is loaded, and why"
    ) as row:
        if not mount(tmp_path, "-t", "tmpfs", "-o", "ro"):
            pytest.skip("a read-only disk takes a privilege to mount, and root can write the rest")
        try:
            command = Path(sys.executable).parent / "sensefield"
            started = time.monotonic()
            ended = subprocess.run(
                [command, "serve", "--vectors-dir", tmp_path],
                capture_output=True,
                text=True,
                timeout=PATIENCE_SECONDS,
                check=False,
            )
            row.observed = f"exit {ended.returncode} after {seconds(started)}, and why"
        finally:
            subprocess.run(["umount", tmp_path], check=True)
        assert ended.returncode == 1
        assert f"vectors_dir {tmp_path} cannot be written" in ended.stderr
        assert "Read-only file system" in ended.stderr
        assert "EngineCore" not in ended.stdout + ended.stderr
