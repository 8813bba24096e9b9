"""The images' recipes and the composition, as far as tools can read them without building."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "deploy" / "docker"
RECIPES = sorted(DOCKER.glob("*.Dockerfile"))
VLLM = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"][
    "gpu"
][0].removeprefix("vllm==")


def recipe(name: str) -> str:
    """Return a recipe with its continued lines joined."""
    return re.sub(r"\\\n\s*", "", (DOCKER / f"{name}.Dockerfile").read_text())


def composition(*names: str) -> dict[str, Any]:
    """Return the merged composition as Docker Compose reads it."""
    compose = shutil.which("docker-compose")
    if compose is None:
        assert not os.environ.get("CI"), "CI installs Docker Compose"
        pytest.skip("Docker Compose is not installed (Debian: apt-get install docker-compose)")
    files = [part for name in names for part in ("--file", str(DOCKER / name))]
    environment = {**os.environ, "MODEL": "Qwen/Qwen3-8B"}
    done = subprocess.run(
        [compose, *files, "config"], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = yaml.safe_load(done.stdout)
    return found


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_hadolint_finds_nothing(path: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_images_run_without_root_and_ask_whether_the_server_is_ready(name: str) -> None:
    text = recipe(name)
    assert "\nUSER 10001\n" in text
    assert re.search(r'^HEALTHCHECK .*CMD \["sensefield-ready"\]$', text, re.MULTILINE)
    assert text.rstrip().endswith('ENTRYPOINT ["sensefield", "serve"]')
    assert ":latest" not in text


def test_the_health_check_knows_a_server_that_is_not_there() -> None:
    done = subprocess.run([DOCKER / "ready.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("not ready: ")


def test_the_gpu_image_stands_on_the_vllm_that_is_supported() -> None:
    assert f"FROM vllm/vllm-openai:v{VLLM}\n" in recipe("gpu")


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_what_is_copied_exists_and_is_let_through(name: str) -> None:
    let_through = [
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    for pattern in let_through:
        assert list(ROOT.glob(pattern)), pattern
    locks = re.findall(r"requirements/\S+\.txt", recipe(name))
    assert locks
    assert all((ROOT / lock).is_file() for lock in locks)
    assert {"requirements/*.txt", "requirements/install.py"} <= set(let_through)


@pytest.mark.parametrize("names", [["compose.yml"], ["compose.yml", "compose.gpu.yml"]])
def test_the_composition_is_whole(names: list[str]) -> None:
    services = composition(*names)["services"]
    assert set(services) == {"sensefield", "prometheus", "grafana"}
    server = services["sensefield"]
    assert server["read_only"]
    assert server["cap_drop"] == ["ALL"]
    kind = "gpu" if len(names) == 2 else "cpu"
    assert (Path(server["build"]["context"]) / server["build"]["dockerfile"]) == (
        DOCKER / f"{kind}.Dockerfile"
    )
    for service in services.values():
        for port in service["ports"]:
            assert str(port).startswith("127.0.0.1:")
        for volume in service.get("volumes", ()):
            source = str(volume).split(":")[0]
            assert not source.startswith("/") or Path(source).exists(), source


def test_prometheus_scrapes_the_server_of_the_composition() -> None:
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    (host, port) = job["static_configs"][0]["targets"][0].split(":")
    assert host in composition("compose.yml")["services"]
    assert f"EXPOSE {port}\n" in recipe("cpu")
