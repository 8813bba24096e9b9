"""The source archive of a package, found by its name in the configured indexes."""

from __future__ import annotations

import hashlib
import os
import ssl
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import urllib.request
from pathlib import Path
from typing import Any

from requirements.install import uv_settings

_SECONDS = 600


class ArchiveError(Exception):
    """The archive cannot be had; the message says why."""


def find_sdist(name: str, version: str) -> dict[str, Any]:
    """Return what a lock says of a package's source archive: ``url`` and ``hashes``.

    uv writes such a lock from the index alone: nothing is built, as pip would to read metadata.

    Raises:
        ArchiveError: no index that pip is configured with has it.

    """
    uv = Path(sys.prefix) / "bin" / "uv"
    listed = _run([sys.executable, "-m", "pip", "config", "list"], dict(os.environ))
    environment = {**os.environ, **uv_settings(listed, os.environ)}
    with tempfile.TemporaryDirectory() as folder:
        wanted, lock = Path(folder) / "wanted.txt", Path(folder) / "pylock.toml"
        wanted.write_text(f"{name}=={version}\n")
        command = [str(uv), "pip", "compile", "--quiet", "--no-deps", "--format", "pylock.toml"]
        command += ["--python", sys.executable, "--output-file", str(lock), str(wanted)]
        _run(command, environment)
        packages = tomllib.loads(lock.read_text())["packages"]
    found: dict[str, Any] | None = packages[0].get("sdist")
    if found is None or "url" not in found:
        raise ArchiveError(f"the configured indexes have no source archive of {name} {version}")
    return found


def _run(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ArchiveError(f"{Path(command[0]).name} failed: {done.stderr.strip()[-1000:]}")
    return done.stdout


def unpack_tests(sdist: dict[str, Any], prefix: str, folder: Path) -> None:
    """Download an archive, check its SHA-256, and unpack the files below a path of it.

    Args:
        sdist: what :func:`find_sdist` returns.
        prefix: a path below the archive's only folder.
        folder: where to put them.

    Raises:
        ArchiveError: the archive is not as the index says.

    """
    context = ssl.create_default_context(cafile=os.environ.get("PIP_CERT"))
    with tempfile.TemporaryFile() as file:
        digest = hashlib.sha256()
        with urllib.request.urlopen(sdist["url"], timeout=_SECONDS, context=context) as answer:
            while chunk := answer.read(1 << 20):
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != sdist["hashes"]["sha256"]:
            raise ArchiveError(f"{sdist['url']} has not the SHA-256 that the index names")
        file.seek(0)
        with tarfile.open(fileobj=file) as archive:
            for member in archive:
                _, _, path = member.name.partition("/")
                if member.isfile() and path.startswith(prefix):
                    member.name = path
                    archive.extract(member, folder, filter="data")
