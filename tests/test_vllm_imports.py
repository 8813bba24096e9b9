"""Where the code meets vLLM: a short list of modules, and a table of what is replaced."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.engine.seams import TABLE

ROOT = Path(__file__).parents[1]
PACKAGES = ("service", "logit_processors")
SOURCES = [path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py"))]
ENGINE = ROOT / "service" / "engine"
REPLACED = {seam.name for seam in TABLE}


def imported(source: str) -> dict[str, str]:
    """Return what a module imports of vLLM: its names there, and vLLM's full names."""
    found: dict[str, str] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vllm":
            found |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
        elif isinstance(node, ast.Import):
            found |= {
                each.asname or "vllm": each.name if each.asname else "vllm"
                for each in node.names
                if each.name.split(".")[0] == "vllm"
            }
    return found


def replaced(source: str) -> Iterator[str]:
    """Yield the full names of what a module assigns to or deletes in vLLM's modules and classes."""
    names = imported(source)
    for node in ast.walk(ast.parse(source)):
        parts: list[ast.expr] = []
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            parts = [node.value, ast.Constant(node.attr)]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("setattr", "delattr"):
            parts = node.args[:2]
        if not parts:
            continue
        owner, _, rest = ast.unparse(parts[0]).partition(".")
        attribute = parts[1].value if isinstance(parts[1], ast.Constant) else "*"
        if owner in names:
            yield ".".join(filter(None, (names[owner], rest, str(attribute))))


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("from vllm.a import B\nB.run = 1", ["vllm.a.B.run"]),
        ("from vllm.a import B as C\nC.d.run = 1", ["vllm.a.B.d.run"]),
        ("import vllm\nvllm.a.run = 1", ["vllm.a.run"]),
        ("import vllm.a as b\nb.run += 1", ["vllm.a.run"]),
        ("from vllm import a\nsetattr(a, 'run', 1)", ["vllm.a.run"]),
        ("from vllm import a\nname = ''\nsetattr(a, name, 1)", ["vllm.a.*"]),
        ("from vllm import a\ndef f():\n    del a.run", ["vllm.a.run"]),
        ("from vllm import a\nfrom other import b\nb.run = a.run", []),
    ],
)
def test_an_assignment_is_found(source: str, names: list[str]) -> None:
    assert list(replaced(source)) == names


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_of_vllm_is_replaced_but_by_the_table(path: Path) -> None:
    assert set(replaced(path.read_text())) <= REPLACED


def test_what_the_table_does_not_replace_itself_is_replaced_in_the_engine() -> None:
    found = {name for path in SOURCES for name in replaced(path.read_text())}
    inside = {name for path in ENGINE.rglob("*.py") for name in replaced(path.read_text())}
    assert found == inside == {seam.name for seam in TABLE if seam.installer is not None}


def test_the_list_of_modules_that_import_vllm_is_exact() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    listed = re.findall(r"^\| `((?:service|logit_processors)/\S+)` \| \S", text, re.MULTILINE)
    outside = [path for path in SOURCES if ENGINE not in path.parents]
    importing = {str(path.relative_to(ROOT)) for path in outside if imported(path.read_text())}
    assert set(listed) == importing
    assert len(set(listed)) == len(listed)
