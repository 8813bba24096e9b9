"""Installing from a bundle alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from hashlib import file_digest
from pathlib import Path

import pytest

from tests.integration.servers import REPOSITORY

AIRGAP = REPOSITORY / "deploy" / "airgap"
NO_NETWORK = ("unshare", "--net", "--map-root-user")
SERVE = """
set -e
ip link set lo up
"$1/install.sh" "$2"
"$2/bin/sensefield" serve --port 8000 &
ready="import urllib.request as u; u.urlopen('http://127.0.0.1:8000/ready')"
until "$2/bin/python" -c "$ready" 2>/dev/null; do kill -0 $!; sleep 1; done
kill $!
wait $!
"""
"""Installs the bundle $1 into the environment $2 and serves until it is ready."""
PACKAGE = "small-1.0"
WHEEL = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle of one package that has one line."""
    folder = tmp_path / "bundle"
    (folder / "wheels").mkdir(parents=True)
    shutil.copy(AIRGAP / "install.sh", folder)
    with zipfile.ZipFile(folder / "wheels" / f"{PACKAGE}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("small.py", "print('installed')\n")
        info = f"{PACKAGE}.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: small\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", WHEEL)
        wheel.writestr(f"{info}/RECORD", "")
    with (folder / "SHA256SUMS").open("w") as sums:
        for path in (folder / "install.sh", *(folder / "wheels").iterdir()):
            with path.open("rb") as file:
                digest = file_digest(file, "sha256").hexdigest()
            sums.write(f"{digest}  {path.relative_to(folder)}\n")
    return folder


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_bundle_is_installed_into_a_new_environment(bundle: Path, tmp_path: Path) -> None:
    installed = run(bundle / "install.sh", tmp_path / "new")
    assert installed.returncode == 0, installed.stderr
    told = run(tmp_path / "new" / "bin" / "python", "-c", "import small")
    assert told.stdout == "installed\n"


def test_a_bundle_that_was_damaged_is_refused(bundle: Path, tmp_path: Path) -> None:
    (wheel,) = (bundle / "wheels").iterdir()
    wheel.write_bytes(wheel.read_bytes()[:-1])
    refused = run(bundle / "install.sh", tmp_path / "new")
    assert refused.returncode != 0
    assert wheel.name in refused.stdout
    assert not (tmp_path / "new").exists()


def test_an_engine_that_is_not_known_is_refused(tmp_path: Path) -> None:
    refused = run("bash", "-c", f"PYTHON=true {AIRGAP / 'pack.sh'} {tmp_path / 'out'} tpu")
    assert refused.returncode == 2
    assert "tpu; allowed: cpu, gpu" in refused.stderr


def test_a_server_runs_from_the_bundle_without_a_network(full: bool, tmp_path: Path) -> None:
    if not full:
        pytest.skip("only with --full: it takes gigabytes and minutes")
    packed = run(AIRGAP / "pack.sh", tmp_path / "bundle")
    assert packed.returncode == 0, packed.stderr
    alone = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "VLLM_CPU_KVCACHE_SPACE": "1"}
    served = subprocess.run(
        [*NO_NETWORK, "bash", "-c", SERVE, "bash", tmp_path / "bundle", tmp_path / "new"],
        env=alone,
        capture_output=True,
        text=True,
        check=False,
    )
    assert served.returncode == 0, served.stdout[-2000:] + served.stderr[-4000:]
    assert "installed" in served.stdout
