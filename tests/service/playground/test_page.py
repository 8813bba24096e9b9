"""The page as it is shipped: its policy, its vendored libraries, its place in the wheel."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient

from service.playground.page import HEADERS, STATIC, mount

ROOT = Path(__file__).parents[3]
VENDOR = STATIC / "vendor"
MANIFEST = json.loads((VENDOR / "VENDORED.json").read_text())
SCRIPTS = sorted((STATIC / "js").glob("*.js"))


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("", "text/html"),
        ("index.html", "text/html"),
        ("js/main.js", "text/javascript"),
        ("playground.css", "text/css"),
        ("icon.svg", "image/svg+xml"),
    ],
)
async def test_files_come_under_the_policy(path: str, kind: str) -> None:
    app = FastAPI()
    mount(app)
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        answer = await client.get(f"/playground/{path}")
        outside = await client.get("/playground/../page.py")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(kind)
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert outside.status_code == 404


async def test_the_root_leads_to_the_page_wherever_a_proxy_puts_it() -> None:
    app = FastAPI()
    mount(app)
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        answer = await client.get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "playground/")


def test_the_policy_allows_no_inline_script_and_no_eval() -> None:
    assert "unsafe" not in HEADERS["Content-Security-Policy"]
    assert HEADERS["Content-Security-Policy"].startswith("default-src 'none'")


def test_libraries_are_what_the_manifest_says() -> None:
    listed = {"VENDORED.json"}
    for library in MANIFEST.values():
        assert re.fullmatch(r"\d+\.\d+\.\d+", library["version"])
        assert "icense" in (VENDOR / library["licence"]).read_text()
        listed |= {library["licence"], *library["files"]}
        for name, sha256 in library["files"].items():
            assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == sha256, name
    assert {path.name for path in VENDOR.iterdir()} == listed


def test_scripts_import_files_that_are_there_and_nothing_else() -> None:
    for script in SCRIPTS:
        for name in re.findall(r'from "([^"]+)"', script.read_text()):
            assert name.startswith("."), f"{script.name} imports {name}"
            assert (script.parent / name).is_file(), f"{script.name} imports {name}"


def test_no_script_writes_html_or_evaluates_text() -> None:
    forbidden = re.compile(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(|Function\("
    )
    assert [script.name for script in SCRIPTS if forbidden.search(script.read_text())] == []


def test_the_wheel_takes_every_file() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert wheel == {"targets": {"wheel": {"packages": ["service", "logit_processors"]}}}
    # Hatch leaves out what git ignores, and nothing else of a package.
    files = [str(path) for path in STATIC.rglob("*") if path.is_file()]
    assert len(files) > 30
    ignored = subprocess.run(
        ["git", "check-ignore", *files], cwd=ROOT, capture_output=True, check=False
    )
    assert ignored.stdout == b""
