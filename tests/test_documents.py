"""What the documents say of settings and files is what the repository has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.settings import PREFIX, Settings

ROOT = Path(__file__).parents[1]
OPERATING = (ROOT / "docs/operating.md").read_text()
_ROW = re.compile(r"^\| `--([a-z-]+)`[^|]*\| `(SENSEFIELD_[A-Z_]+)` \|", re.MULTILINE)
_LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)")
DOCUMENTS = sorted([*ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.md")])


def test_the_table_of_settings_is_complete() -> None:
    rows = {flag.replace("-", "_"): variable for flag, variable in _ROW.findall(OPERATING)}
    assert rows == {name: f"{PREFIX}{name.upper()}" for name in Settings.model_fields}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    dead = [link for link in _LINK.findall(path.read_text()) if not (path.parent / link).exists()]
    assert dead == []
