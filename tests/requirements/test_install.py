"""The installer: where uv looks, what is installed out of what, and what happens without uv."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from requirements import install

PIP_CONFIG = """\
global.constraint='/etc/limits.txt'
global.index-url='https://pip.example/simple'
global.timeout='5'
install.extra-index-url='https://one.example/simple https://two.example/simple'
:env:.find-links='/wheels /more'
:env:.timeout='60'
:env:.no-input='1'
"""


def test_uv_looks_where_pip_looks() -> None:
    assert install.uv_settings(PIP_CONFIG, {}) == {
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_CONSTRAINT": "/etc/limits.txt",
        "UV_DEFAULT_INDEX": "https://pip.example/simple",
        "UV_INDEX": "https://one.example/simple https://two.example/simple",
        "UV_FIND_LINKS": "/wheels,/more",
        "UV_HTTP_TIMEOUT": "60",  # the environment's, over the file's
    }


def test_what_is_set_for_uv_itself_stays() -> None:
    found = install.uv_settings(PIP_CONFIG, {"UV_DEFAULT_INDEX": "https://uv.example", "HOME": "/"})
    assert found["UV_DEFAULT_INDEX"] == "https://uv.example"
    assert "HOME" not in found


def test_a_step_says_how_many_packages_it_installs() -> None:
    torch, engine = install.steps_of(Path(".venv"), "cpu")
    assert torch.title == "torch: 1 package of requirements/torch-cpu.txt"
    assert engine.title.startswith("the engine: 1")
    (ray,) = install.steps_of(Path(".venv"), "ray")
    assert ray.arguments[-2:] == ("--target", ".venv/ray")


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """An environment whose ``python`` and ``uv`` write down how they were called, and succeed."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("python", "uv"):
        write_program(folder / name, f'echo "{name} $*" >> {tmp_path}/calls; exit 0')
    return tmp_path


def write_program(file: Path, script: str) -> None:
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def calls(environment: Path) -> list[str]:
    """Return the installations that were tried, each as its program and its index if it has one."""
    lines = (environment / "calls").read_text().splitlines()
    return [
        f"{line.split()[0]}{' elsewhere' * ('--index-url' in line)}"
        for line in lines
        if " config list" not in line
    ]


STEP = install.Step("torch", ("--no-deps", "torch"), other_index="https://elsewhere.example")
FAILING = 'echo "{0} $*" >> {1}/calls; exit 2'
ELSEWHERE_ONLY = 'echo "{0} $*" >> {1}/calls; case "$*" in *--index-url*) exit 0;; esac; exit 2'


def test_uv_installs(environment: Path) -> None:
    install.Installer(environment).install(STEP)
    assert calls(environment) == ["uv"]


def test_what_the_index_lacks_comes_from_the_other(
    environment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_program(environment / "bin" / "uv", ELSEWHERE_ONLY.format("uv", environment))
    install.Installer(environment).install(STEP)
    assert calls(environment) == ["uv", "uv elsewhere"]
    assert "asking https://elsewhere.example" in capsys.readouterr().err


def test_pip_installs_where_uv_fails_or_is_not_there(
    environment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_program(environment / "bin" / "uv", FAILING.format("uv", environment))
    write_program(environment / "bin" / "python", ELSEWHERE_ONLY.format("python", environment))
    install.Installer(environment).install(STEP)
    assert calls(environment) == ["uv", "uv elsewhere", "python", "python elsewhere"]
    assert "installing with pip" in capsys.readouterr().err
    (environment / "calls").unlink()
    (environment / "bin" / "uv").unlink()
    install.Installer(environment).install(STEP)
    assert calls(environment) == ["python", "python elsewhere"]


def test_what_neither_can_install_is_an_error(environment: Path) -> None:
    for name in ("python", "uv"):
        write_program(environment / "bin" / name, FAILING.format(name, environment))
    with pytest.raises(subprocess.CalledProcessError):
        install.Installer(environment).install(STEP)
    assert install.main([str(environment), "project"]) == 1


def test_progress_names_each_step_and_the_time(
    environment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert install.main([str(environment), "dev"]) == 0
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("[1/1] the developers' tools: ")
    assert last.startswith("dev: installed in ")


def test_only_the_standard_library_is_needed() -> None:
    """It runs before anything is installed: -I leaves out the working folder, -S all packages."""
    command = [sys.executable, "-I", "-S", install.__file__, "/nowhere", "project"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "No module named" not in done.stderr
