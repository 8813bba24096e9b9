"""What the documents say of settings and files is what the repository has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from service.settings import PREFIX, Settings

ROOT = Path(__file__).parents[1]
OPERATING = (ROOT / "docs/operating.md").read_text()
_ROW = re.compile(r"^\| `--([a-z-]+)`[^|]*\| `(SENSEFIELD_[A-Z_]+)` \| (.*?) \|$", re.MULTILINE)
NOTHING = {"max_tokens": "the context"}
"""What the lack of a setting means, where it is not none."""
_LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)")
DOCUMENTS = sorted(
    path for folder in ("", "docs/**/", "deploy/**/") for path in ROOT.glob(f"{folder}*.md")
)


def test_the_table_of_settings_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    rows = {
        flag.replace("-", "_"): (variable, default)
        for flag, variable, default in _ROW.findall(OPERATING)
    }
    assert rows == {
        name: (f"{PREFIX}{name.upper()}", told(name, field.get_default(call_default_factory=True)))
        for name, field in Settings.model_fields.items()
    }


def told(name: str, default: Any) -> str:
    """Return a setting's default as the table has it."""
    if default in (None, ""):
        return NOTHING.get(name, "none")
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if name.endswith("_bytes"):
        gib = default / 2**30
        return f"{gib:g} GiB" if gib >= 1 else f"{default / 2**20:g} MiB"
    if isinstance(default, str):
        return f"`{default}`".replace(str(Path.home()), "~")
    return f"{default:g}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    dead = [link for link in _LINK.findall(path.read_text()) if not (path.parent / link).exists()]
    assert dead == []
