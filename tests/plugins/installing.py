"""Packages of controls, installed as their users install them, where shared servers see them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.integration.servers import REPOSITORY

PACKAGES = (REPOSITORY / "docs" / "plugins" / "fresh", REPOSITORY / "tests/plugins/failing")


def install(folder: Path, *packages: Path) -> Path:
    """Install packages into a folder of their own, which PYTHONPATH then names."""
    command = [str(Path(sys.prefix) / "bin" / "uv"), "pip", "install", "--quiet", "--no-deps"]
    command += ["--python", sys.executable, "--target", str(folder), *map(str, packages)]
    subprocess.run(command, check=True, cwd=REPOSITORY)
    return folder


def with_plugins(folder: Path, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return a server's environment with the example and the failing package installed."""
    environment = dict(environment or {})
    places = [str(install(folder / "plugins", *PACKAGES)), environment.get("PYTHONPATH", "")]
    return {**environment, "PYTHONPATH": os.pathsep.join(filter(None, places))}
